"""Row formats of single answers: each record becomes the row it describes."""

from typing import Any

import pytest

from mtl_opt.data.read.row_formats import RowSpec, make_row
from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.errors import InputError

ALPACA = {"instruction": "Is it fine?", "output": "yes"}


def row_of(record: Any, formatting: str | None = None, **spec: Any) -> Row:
    return make_row(record, "rows.jsonl", 7, RowSpec(formatting, **spec))


def test_alpaca_reads_system_and_history() -> None:
    row = row_of(
        {"instruction": "c", "input": "d", "output": "e", "system": "s", "history": [["a", "b"]], "task_name": "情绪"}
    )
    assert row.turns == [
        (Turn("user", "a"), Turn("assistant", "b")),
        (Turn("user", "c\nd"), Turn("assistant", "e")),
    ]
    assert (row.system, row.task, row.line) == ("s", "情绪", 7)


def test_columns_that_are_listed_are_read_and_no_others() -> None:
    columns = {"prompt": "question", "response": "answer"}
    row = row_of({"question": "q", "answer": "a", "input": "not asked for", "system": "nor this"}, columns=columns)
    assert (row.user_text, row.output, row.system) == ("q", "a", "")


def test_a_prompt_column_without_answer_is_plain_text() -> None:
    row = row_of({"text": "从前", "timestamp": 3}, columns={"prompt": "text"})
    assert (row.asks, row.output) == ("nobody", "从前")


def test_prompt_and_completion_may_be_texts_or_messages_and_lose_a_mark_of_the_end() -> None:
    assert row_of({"prompt": "a", "completion": "b<|endoftext|>"}).output == "b"
    prompt = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = row_of({"prompt": prompt, "completion": [{"role": "assistant", "content": "d"}]})
    assert row.history == (Turn("user", "a", False), Turn("assistant", "b", False))
    assert (row.user_text, row.output, row.learn) == ("c", "d", True)


@pytest.mark.parametrize("answer", [1, "B", "rain", "1"])
def test_the_answer_to_a_choice_is_an_index_a_letter_or_a_text(answer: object) -> None:
    row = row_of({"question": "Weather?", "choices": ["sun", "rain"], "answer": answer})
    assert (row.user_text, row.output) == ("Weather?\nA. sun\nB. rain", "B")
    assert (row.choices, row.label) == (("A", "B"), "B")


def test_choices_may_bring_their_own_letters() -> None:
    record = {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"}
    assert row_of(record).output == "2"


@pytest.mark.parametrize(("label", "text"), [("angry", "angry"), (3, "3"), (True, "True")])
def test_a_label_is_learnt_as_text(label: object, text: str) -> None:
    row = row_of({"text": "a", "label": label})
    assert (row.output, row.label) == (text, text)


def test_query_and_response_are_question_and_answer() -> None:
    row = row_of({"query": "1+1?", "response": "2", "history": [["hi", "hello"]], "system": "s"})
    assert (row.user_text, row.output, row.system, len(row.history)) == ("1+1?", "2", "s", 2)
    with pytest.raises(InputError, match="`response` is empty"):
        row_of({"query": "1+1?", "response": ""})


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_question_of_the_history_without_an_answer_is_joined_with_the_next(nothing: str | None) -> None:
    row = row_of({"instruction": "c", "output": "d", "history": [["a", "b"], ["问", nothing]]})
    assert (row.user_text, [turn.text for turn in row.history]) == ("问\n\nc", ["a", "b"])
    row = row_of({"instruction": "c", "output": "d", "history": [["q", nothing], ["a", "b"]]})
    assert (row.user_text, [turn.text for turn in row.history]) == ("c", ["q\n\na", "b"])


@pytest.mark.parametrize("record", [ALPACA, {"text": "你好", "label": "greeting"}, {"prompt": "p", "completion": "c"}])
@pytest.mark.parametrize("key", ["loss", "loss_mask", "weight", "train"])
def test_a_row_of_one_answer_that_is_not_learnt_or_weighed_is_refused(record: dict[str, Any], key: str) -> None:
    for learnt in (True, 1, None, "heavy"):  # a text is a column of the user's own
        assert row_of({**record, key: learnt}).learn
    with pytest.raises(InputError, match=rf"`{key}: false` says that the only answer of the row is not learnt"):
        row_of({**record, key: False})
    with pytest.raises(InputError, match=rf"the row, `{key}` must be 0 or 1, got 0.5: .*`tasks.NAME.weight`"):
        row_of({**record, key: 0.5})
    names = {"prompt": "instruction", "response": "output"}
    assert row_of({**ALPACA, key: 0.5}, columns={**names, "group": key}).group == "0.5"
