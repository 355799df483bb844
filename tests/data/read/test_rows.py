"""Rows."""

import pytest

from mtl_opt.data.read.rows import Row


def test_user_text_joins_instruction_and_input_by_a_line_break() -> None:
    assert Row("a", "b", "c", None, "f", 1).user_text == "a\nb"


@pytest.mark.parametrize(("instruction", "text"), [("a", ""), ("", "a")])
def test_user_text_has_no_line_break_where_a_part_is_empty(instruction: str, text: str) -> None:
    assert Row(instruction, text, "c", None, "f", 1).user_text == "a"
