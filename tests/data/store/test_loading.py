import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source
from mtl_opt.data.registry import Entry, task_entries
from mtl_opt.data.store.loading import SplitRules, TaskRows, hold_out, load_rows
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.errors import InputError

Write = Callable[..., str]
Load = Callable[..., TaskRows]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_file(name: str, *tasks: str | None) -> str:
        records = [
            {"instruction": f"{i}", "output": "a"} | ({} if task is None else {"task_name": task})
            for i, task in enumerate(tasks)
        ]
        (tmp_path / name).write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in records), encoding="utf-8")
        return str(tmp_path / name)

    return write_file


@pytest.fixture
def load(plain_tokenizer: PreTrainedTokenizerBase) -> Callable[..., TaskRows]:
    def load_by_task(files: dict | str, eval_file: str | None, val_size: float, **opener: object) -> TaskRows:
        encoder = Encoder(plain_tokenizer, get_template("default"), 64)
        entries = [Entry(Source(files, needs_task=True))] if isinstance(files, str) else task_entries(files)
        held_out = [] if eval_file is None else [Source(eval_file, needs_task=True)]
        return load_rows(entries, Opener(encoder, **opener), SplitRules(val_size), held_out, complete=True)

    return load_by_task


def numbers(rows: Sequence[Row]) -> list[int]:
    return [int(row.instruction) for row in rows]


def test_files_per_task_keep_the_order_of_tasks(write: Write, load: Load) -> None:
    tasks = {
        "问答": {"file": write("b.jsonl", None, None), "eval_file": write("b_dev.jsonl", None)},
        "anger": {"file": write("a.jsonl", "anger"), "eval_file": write("a_dev.jsonl", None, "anger")},
    }
    rows = load(tasks, None, 0.1)
    assert list(rows.train) == list(rows.eval) == ["问答", "anger"]
    assert [len(r) for r in rows.train.values()] == [2, 1]
    assert [len(r) for r in rows.eval.values()] == [1, 2]


def test_a_mixed_file_gives_tasks_in_order_of_first_appearance(write: Write, load: Load) -> None:
    rows = load(write("a.jsonl", "b", "情绪", "b", "a"), write("dev.jsonl", "a", "情绪", "b", "a"), val_size=0)
    assert list(rows.train) == list(rows.eval) == ["b", "情绪", "a"]
    assert numbers(rows.train["b"]) == [0, 2]
    assert numbers(rows.eval["a"]) == [0, 3]


def test_rows_are_held_out_of_each_task_apart(write: Write, load: Load) -> None:
    rows = load(write("a.jsonl", *["a", "b"] * 10, *["a"] * 10), None, val_size=0.2)
    assert {task: len(r) for task, r in rows.eval.items()} == {"a": 4, "b": 2}
    for task in ("a", "b"):
        assert not set(numbers(rows.train[task])) & set(numbers(rows.eval[task]))


def test_only_tasks_without_eval_file_lose_rows(write: Write, load: Load) -> None:
    tasks = {
        "a": {"file": write("a.jsonl", *[None] * 10), "eval_file": write("dev.jsonl", None)},
        "b": {"file": write("b.jsonl", *[None] * 10)},
    }
    rows = load(tasks, None, val_size=3)
    assert {task: len(r) for task, r in rows.train.items()} == {"a": 10, "b": 7}
    assert {task: len(r) for task, r in rows.eval.items()} == {"a": 1, "b": 3}


def test_nothing_is_held_out_with_val_size_zero(write: Write, load: Load) -> None:
    rows = load(write("a.jsonl", "a", "b"), None, val_size=0)
    assert {task: len(r) for task, r in rows.eval.items()} == {"a": 0, "b": 0}


@pytest.mark.parametrize(("val_size", "num_out"), [(0.1, 2), (0.01, 1), (0.9, 18), (1, 1), (1.0, 1), (19, 19), (0, 0)])
def test_val_size_is_a_share_below_one_and_a_number_of_rows_from_one(val_size: float, num_out: int) -> None:
    train, held_out = (part.tolist() for part in hold_out("a", np.arange(100, 120), val_size))
    assert len(held_out) == num_out
    assert sorted(train + held_out) == list(range(100, 120))
    assert train == sorted(train)
    assert held_out == sorted(held_out)


def test_held_out_rows_do_not_depend_on_the_random_state() -> None:
    random.seed(1)
    first = hold_out("a", np.arange(50), 0.2)
    random.seed(2)
    before = random.getstate()
    for part, again in zip(first, hold_out("a", np.arange(50), 0.2), strict=True):
        assert part.tolist() == again.tolist()
    assert random.getstate() == before


@pytest.mark.parametrize(("num_rows", "val_size"), [(1, 0.1), (1, 1), (2, 0.9), (5, 5), (5, 100)])
def test_at_least_one_row_is_left_to_train_on(num_rows: int, val_size: float) -> None:
    with pytest.raises(InputError, match="give an `eval_file`"):
        hold_out("a", np.arange(num_rows), val_size)


def test_a_task_too_small_to_hold_out_from_is_named(write: Write, load: Load) -> None:
    with pytest.raises(InputError, match=r"Task `情绪`: .* of 1 row .*`eval_file`"):
        load(write("a.jsonl", "a", "a", "情绪"), None, 0.1)


def test_a_row_of_another_task_in_a_tasks_file_is_refused(write: Write, load: Load) -> None:
    files = {"a": {"file": write("a.jsonl", None, "a", "b")}}
    with pytest.raises(InputError, match=r"a\.jsonl`, line 3: the row says task `b`, .* task `a`"):
        load(files, None, 0)


def test_a_row_of_another_task_in_a_tasks_eval_file_is_refused(write: Write, load: Load) -> None:
    files = {"a": {"file": write("a.jsonl", "a"), "eval_file": write("dev.jsonl", "b")}}
    with pytest.raises(InputError, match=r"dev\.jsonl`, line 1: .*`b`.*`a`"):
        load(files, None, 0)


def test_a_row_without_task_in_a_mixed_file_is_refused(write: Write, load: Load) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl`, line 2: the key `task_name` is missing"):
        load(write("a.jsonl", "a", None), None, 0)


def test_an_unknown_task_in_the_eval_file_is_refused(write: Write, load: Load) -> None:
    with pytest.raises(InputError, match=r"dev\.jsonl`, line 2: unknown task `c`.*: a, b\."):
        load(write("a.jsonl", "a", "b"), write("dev.jsonl", "a", "c"), 0)


def test_a_task_without_eval_rows_is_refused(write: Write, load: Load) -> None:
    with pytest.raises(InputError, match=r"dev\.jsonl` has no rows of task `b`, `c`\."):
        load(write("a.jsonl", "a", "b", "c"), write("dev.jsonl", "a"), 0)


def test_a_task_with_an_empty_file_is_refused(write: Write, load: Load) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl` has no rows"):
        load({"a": {"file": write("a.jsonl")}}, None, 0)


@pytest.mark.parametrize("val_size", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_val_size_that_is_neither_share_nor_number_is_refused(load: Load, val_size: float) -> None:
    with pytest.raises(InputError, match="`val_size`"):
        load({"a": {"file": "a.jsonl"}}, None, val_size)


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", "a\nb", "a\tb", "a\x00", "a\u2028b", "..", 3, True])
def test_a_name_that_is_no_tag_and_file_name_is_refused(load: Load, name: object) -> None:
    with pytest.raises(InputError, match=r"`tasks`: bad task name .*; a task name is"):
        load({name: {"file": "a.jsonl"}}, None, 0)


@pytest.mark.parametrize("name", ["a/b", " a", "a\tb"])
def test_a_bad_name_in_a_row_is_refused_with_its_line(write: Write, load: Load, name: str) -> None:
    with pytest.raises(InputError, match=r"a\.jsonl`, line 2: bad task name"):
        load(write("a.jsonl", "a", name), None, 0)


@pytest.mark.parametrize("name", ["情绪 识别", "a b", "complaint-core_2", "a\u200d😀"])
def test_other_names_are_fine(write: Write, load: Load, name: str) -> None:
    assert list(load({name: {"file": write("a.jsonl", name)}}, None, 0).train) == [name]
