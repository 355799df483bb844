"""The task that a record names itself."""

from typing import Any

import pytest

from mtl_opt.data.read.row_formats import RowSpec, make_row
from mtl_opt.data.read.rows import Row


def row_of(record: Any, formatting: str | None = None, **spec: Any) -> Row:
    return make_row(record, "rows.jsonl", 7, RowSpec(formatting, **spec))


@pytest.mark.parametrize(
    ("record", "task"),
    [
        ({"task_name": "a", "task": "b"}, "a"),
        ({"task": "b", "channel": "c"}, "b"),
        ({"channel": "c", "task_id": 4}, "c"),
        ({"task_id": 4}, "4"),
        ({"task_name": None}, None),
    ],
)
def test_a_row_names_its_task_under_any_of_the_usual_keys(record: dict[str, Any], task: str | None) -> None:
    assert row_of({"instruction": "a", "output": "b", **record}).task == task


def test_a_column_of_another_meaning_can_be_kept_from_naming_the_task() -> None:
    columns = {"prompt": "instruction", "response": "output", "task": None}
    assert row_of({"instruction": "a", "output": "b", "task": "HumanEval/3"}, columns=columns).task is None
