import json
import random
from collections import Counter

import pytest

from mtl_opt.errors import InputError
from mtl_opt.examples.support_desk.messages import FEELINGS, PROBLEMS
from mtl_opt.examples.support_desk.products import CATALOGUE
from mtl_opt.examples.support_desk.rows import (
    DATA_SEED,
    EVAL_ROWS,
    TASKS,
    TRAIN_ROWS,
    generate_rows,
    pretraining_texts,
    write_files,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    write_files(folder)
    return {
        path.name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in folder.iterdir()
    }


def test_write_makes_two_files_of_the_promised_size_per_task(files):
    expected = {f"{t}.train.jsonl": TRAIN_ROWS[t] for t in TASKS} | {f"{t}.eval.jsonl": EVAL_ROWS for t in TASKS}
    assert {name: len(rows) for name, rows in files.items()} == expected


def test_rows_are_alpaca_rows_with_nothing_empty(files):
    for name, rows in files.items():
        for row in rows:
            assert list(row) == ["instruction", "input", "output", "task_name"]
            assert all(value.strip() == value and value for value in row.values())
            assert row["task_name"] == name.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("task", TASKS)
def test_no_held_out_input_is_in_the_training_rows(files, task):
    train = {row["input"] for row in files[f"{task}.train.jsonl"]}
    held_out = {row["input"] for row in files[f"{task}.eval.jsonl"]}
    assert len(train) == TRAIN_ROWS[task]
    assert len(held_out) == EVAL_ROWS
    assert not train & held_out


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    for task in TASKS:
        assert generate_rows(task, 20, 3) == generate_rows(task, 20, 3)
        assert generate_rows(task, 20, 3) != generate_rows(task, 20, 4)
        assert generate_rows(task, 20, 3)[:5] == generate_rows(task, 5, 3)
    assert pretraining_texts(20, 3) == pretraining_texts(20, 3) != pretraining_texts(20, 4)


def test_the_callers_random_state_is_left_alone():
    before = random.getstate()
    generate_rows("anger", 5, 0)
    pretraining_texts(5, 0)
    assert random.getstate() == before


def test_an_unknown_task_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean `anger`"):
        generate_rows("angry", 1, 0)


def test_the_answer_about_a_product_stands_in_the_sheet(files):
    for row in files["product_qa.train.jsonl"]:
        sheet, question = row["input"].rsplit("\n", 1)
        assert row["output"] in sheet
        named = [line for line in sheet.splitlines() if any(p in question and line.startswith(p) for p in CATALOGUE)]
        assert row["output"] in (named[0] if named else sheet)


def test_every_sheet_has_a_distractor(files):
    assert all(row["input"].count("\n") >= 2 for row in files["product_qa.train.jsonl"])


def test_the_core_of_a_complaint_is_kind_and_problem(files):
    kinds = {product.split()[1] for product in CATALOGUE}
    for row in files["complaint_core.train.jsonl"]:
        kind, problem = row["output"].split(" ", 1)
        assert kind in kinds
        assert problem in PROBLEMS
        assert f" {kind}" in row["input"]


def test_the_core_of_a_complaint_cannot_be_copied():
    for problem, clauses in PROBLEMS.items():
        assert len(set(clauses)) >= 5
        assert not any(problem in clause for clause in clauses)


def test_angry_and_calm_customers_are_balanced(files):
    for name in ("anger.train.jsonl", "anger.eval.jsonl"):
        share = Counter(row["output"] for row in files[name])["yes"] / len(files[name])
        assert 0.4 <= share <= 0.6


def test_neither_a_feeling_nor_an_exclamation_mark_decides_the_mood(files):
    rows = files["anger.train.jsonl"]
    for word in ["!", *FEELINGS, *FEELINGS.values()]:
        answers = {row["output"] for row in rows if word in row["input"]}
        assert answers == {"yes", "no"}, word


def test_no_answer_is_common_enough_to_be_guessed(files):
    for task, most in (("product_qa", 0.15), ("complaint_core", 0.1)):
        rows = files[f"{task}.train.jsonl"]
        assert Counter(row["output"] for row in rows).most_common(1)[0][1] / len(rows) < most


def test_pretraining_texts_hold_no_task():
    texts = pretraining_texts(3000, seed=1)
    rows = [row for task in TASKS for row in generate_rows(task, EVAL_ROWS, DATA_SEED)]
    together = "\n".join(texts)
    assert len(texts) == 3000
    for row in rows:
        assert row["instruction"] not in together
        assert f"Human: {row['input']}\n" not in together
        assert f"Assistant: {row['output']}\n" not in together + "\n"
