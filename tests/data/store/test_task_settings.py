"""Settings of tasks: entries that share a task, rows that name theirs, templates and instructions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.registry import registry_entries
from mtl_opt.data.store.loading import SplitRules, TaskRows, load_rows
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.errors import InputError

Load = Callable[..., TaskRows]


@pytest.fixture
def load(plain_tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Load:
    def load_names(registry: dict[str, dict[str, Any]], **files: list[dict[str, str]]) -> TaskRows:
        for name, rows in files.items():
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
        opener = Opener(Encoder(plain_tokenizer, get_template("default"), 200, prefix="### {task}"))
        return load_rows(registry_entries(str(tmp_path), list(registry)), opener, SplitRules())

    return load_names


def rows(*tasks: str | None) -> list[dict[str, str]]:
    named = ({} if task is None else {"task_name": task} for task in tasks)
    return [{"instruction": f"q{i}", "output": "a", **own} for i, own in enumerate(named)]


def test_two_entries_of_one_task_are_one_task(load: Load) -> None:
    registry = {"x": {"file_name": "x.jsonl", "task": "qa"}, "y": {"file_name": "y.jsonl", "task": "qa"}}
    found = load(registry, x=rows(None, None), y=rows(None))
    assert [row.user_text for row in found.train["qa"]] == ["q0", "q1", "q0"]
    assert len(found.train_tokens["qa"]) == len(found.train_tokens["qa"].lengths) == 3


def test_a_rows_own_task_wins_over_the_entrys(load: Load) -> None:
    found = load({"x": {"file_name": "x.jsonl", "task": "qa"}}, x=rows(None, "情绪", None, "情绪"))
    assert {task: len(view) for task, view in found.train.items()} == {"qa": 2, "情绪": 2}


def test_entries_that_contradict_each_other_are_refused(load: Load) -> None:
    registry = {
        "x": {"file_name": "x.jsonl", "task": "qa", "weight": 1},
        "y": {"file_name": "y.jsonl", "task": "qa", "weight": 2},
    }
    with pytest.raises(InputError, match=r"Task `qa` has two values of `weight`: 1\.0 and 2\.0"):
        load(registry, x=rows(None), y=rows(None))


def test_a_ratio_for_several_tasks_is_refused(load: Load) -> None:
    with pytest.raises(InputError, match=r"holds several tasks \(a, b\); give their shares in `ratios`"):
        load({"x": {"file_name": "x.jsonl", "ratio": 0.5}}, x=rows("a", "b"))


def test_template_instruction_and_prefix_of_a_task_are_in_its_tokens(
    load: Load, plain_tokenizer: PreTrainedTokenizerBase
) -> None:
    registry = {
        "x": {"file_name": "x.jsonl", "template": "chatml", "instruction": "Answer shortly."},
        "y": {"file_name": "y.jsonl", "task": "情绪"},
    }
    found = load(registry, x=rows(None), y=rows(None))
    texts = {task: plain_tokenizer.decode(tokens[0].input_ids) for task, tokens in found.train_tokens.items()}
    assert texts["x"].startswith("<|im_start|>user\n### x\nAnswer shortly.\nq0<|im_end|>")
    assert texts["情绪"].startswith("Human: ### 情绪\nq0</s>")
