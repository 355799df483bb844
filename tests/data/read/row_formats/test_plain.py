"""Records of every format become the row they say, or one sentence with file, line and rule."""

from typing import Any

import pytest

from mtl_opt.data.read.row_formats import RowSpec, infer_format, make_row
from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.errors import InputError


def row_of(record: Any, formatting: str | None = None, **spec: Any) -> Row:
    return make_row(record, "rows.jsonl", 7, RowSpec(formatting, **spec))


TALK = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "天气？"},
    {"from": "function_call", "value": '{"name": "weather"}'},
    {"from": "observation", "value": "sunny"},
    {"from": "gpt", "value": "晴天。"},
]
ASK = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"instruction": "a", "output": "b"}, "alpaca"),
        ({"conversations": TALK}, "sharegpt"),
        ({"messages": []}, "openai"),
        ({"chat_rounds": []}, "chat_rounds"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"question": "a", "choices": []}, "multiple_choice"),
        ({"text": "a", "label": "b"}, "classification"),
        ({"text": "a"}, "text"),
        ({"question": "a", "answer": "b"}, "alpaca"),
    ],
)
def test_a_format_is_told_from_the_keys(record: dict[str, Any], name: str) -> None:
    assert infer_format(record) == name


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


def test_sharegpt_reads_tools_calls_and_observations() -> None:
    row = row_of({"conversations": TALK, "tools": '[{"name": "weather"}]'})
    assert row.system == "Be brief."
    assert row.tools == '[{"name": "weather"}]'
    assert [turn.role for pair in row.turns for turn in pair] == ["user", "call", "observation", "assistant"]
    assert row.output == "晴天。"


def test_openai_reads_tool_calls_parts_and_weights() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant", "loss_weight": 0.0,
            "content": [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "yes"}],
        },
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "w", "arguments": '{"at": "北京"}'}}]},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "warm"},
        {"role": "assistant", "content": "nice", "weight": 1},
    ]  # fmt: skip
    row = row_of({"messages": messages})
    (first, said), (_, call), (seen, last) = row.turns
    assert (first.text, said.text, said.learn) == ("hi", "<think>\nhm\n</think>\n\nyes", False)
    assert (call.role, call.text) == ("call", '{"name": "w", "arguments": {"at": "北京"}}')
    assert (seen.role, seen.text) == ("observation", "sunny\nwarm")
    assert (last.text, last.learn) == ("nice", True)


def test_tags_name_roles_and_keys() -> None:
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "甲", "assistant_tag": "乙"}
    record = {"talk": [{"who": "甲", "what": "a"}, {"who": "乙", "what": "b"}]}
    row = row_of(record, "sharegpt", columns={"messages": "talk"}, tags=tags)
    assert (row.user_text, row.output) == ("a", "b")


def test_chat_rounds_name_their_task() -> None:
    rounds = [{"role": "human", "content": "a"}, {"role": "bot", "content": "b"}]
    row = row_of({"id": 0, "data_name": "code", "chat_rounds": rounds})
    assert (row.task, row.output) == ("code", "b")


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


@pytest.mark.parametrize(
    ("record", "spec", "words"),
    [
        ({"instruction": "a", "output": "b", "history": "x"}, {}, "`history` must be a list of [question, answer]"),
        ({"question": "a"}, {"columns": {"prompt": "q", "response": "r"}}, "key `q` is missing; the row has question"),
        ({"messages": []}, {}, "`messages` must be a list of messages, got none"),
        ({"messages": ["hi"]}, {}, "message 1 must be an object"),
        ({"messages": [{"content": "a"}]}, {}, "message 1 has no `from`"),
        ({"messages": [{"role": "nurse", "content": "a"}]}, {}, "unknown role 'nurse'"),
        ({"messages": [{"role": "user", "content": ""}]}, {}, "message 1 is empty"),
        ({"messages": [{"role": "user", "content": 3}]}, {}, "must be a string"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, {}, "part of type 'image'"),
        ({"messages": [{"role": "user", "content": "a"}]}, {}, "ends without an answer"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, {}, "turn 1 is of `assistant`, out of turn"),
        ({"messages": [ASK, ASK]}, {}, "turn 2 is of `user`"),
        ({"messages": [ASK, {"role": "assistant", "content": "a", "weight": 0}]}, {}, "no answer of the dialogue is"),
        ({"messages": [ASK, {"role": "assistant", "content": "a", "weight": 0.5}]}, {}, "`weight` must be 0 or 1"),
        ({"messages": [ASK, {"role": "system", "content": "a"}]}, {}, "must be the first"),
        ({"prompt": "a", "completion": "<|endoftext|>"}, {}, "`completion` is empty"),
        ({"prompt": " ", "completion": "a"}, {}, "`prompt` is empty"),
        ({"text": " "}, {}, "`text` is empty"),
        ({"text": "a", "label": ["b"]}, {}, "`label` must be a text or a number"),
        ({"text": "a", "label": None}, {}, "`label` must be a text or a number, got null"),
        ({"question": "a", "choices": ["b"], "answer": 0}, {}, "`choices` must be a list of 2 to 26 texts"),
        ({"question": "a", "choices": ["b", "c"], "answer": 2}, {}, "`answer` must be an index below 2"),
        ({"question": "a", "choices": ["b", "c"], "answer": True}, {}, "`answer` must be an index below 2"),
        ({"instruction": "a", "output": "b", "task": 3.5}, {}, "`task` must be a string"),
    ],
)  # fmt: skip
def test_a_bad_record_is_refused_with_its_place_and_the_rule(record: object, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        row_of(record, **spec)
    assert str(caught.value).startswith("`rows.jsonl`, line 7: ")
    assert words in str(caught.value)
