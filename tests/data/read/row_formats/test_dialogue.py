"""Row formats of dialogues: roles, tool calls, parts and weights."""

from typing import Any

import pytest

from mtl_opt.data.read.row_formats import RowSpec, make_row
from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.usage import Usage, usage_sentences
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


@pytest.mark.parametrize("key", ["loss", "loss_mask", "loss_scale", "train", "weight"])
@pytest.mark.parametrize("place", ["message", "row"])
def test_every_key_that_says_what_is_learnt_is_read(key: str, place: str) -> None:
    messages = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b")) * 2]
    values: dict = {"messages": messages}
    if place == "message":
        messages[1][key] = 0
    else:
        values[key] = [1, 0, 1, 1.0]
    row = make_row(values, "f.jsonl", 1, RowSpec())
    assert (row.history[1].learn, row.learn) == (False, True)
    (messages[1] if place == "message" else values)[key] = 0.5 if place == "message" else [1, 0.5, 1, 1]
    with pytest.raises(InputError, match=f"`{key}`.* must be 0 or 1, got 0.5: an answer is learnt or not"):
        make_row(values, "f.jsonl", 1, RowSpec())


def test_reasoning_and_calls_of_any_spelling_are_read() -> None:
    call = {"name": "w", "arguments": "{}"}
    for message, answers in (({"function_call": call}, "call"), ({"content": "b"}, "assistant")):
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "reasoning": "hm", **message}]
        row = make_row({"messages": messages}, "f.jsonl", 1, RowSpec())
        assert (row.answers, row.reasoning) == (answers, "hm")
    messages[0]["thinking"] = "hm"
    with pytest.raises(InputError, match="message 1 is of `user` and has `thinking`; only answers have reasoning"):
        make_row({"messages": messages}, "f.jsonl", 1, RowSpec())
    with pytest.raises(InputError, match=r"`loss_mask` must be one value or one per message \(1\), got 2"):
        make_row({"messages": messages[1:], "loss_mask": [1, 0]}, "f.jsonl", 1, RowSpec())


def test_questions_that_follow_each_other_are_joined_and_counted() -> None:
    usage = Usage()
    said = [
        ("user", "a"),
        ("user", "b"),
        ("assistant", "c"),
        ("user", "d"),
        ("user", "e"),
        ("user", "f"),
        ("assistant", "g"),
    ]
    talk = {"messages": [{"role": role, "content": text} for role, text in said]}
    row = make_row(talk, "rows.jsonl", 7, RowSpec(), usage)
    assert [turn.text for pair in row.turns for turn in pair] == ["a\n\nb", "c", "d\n\ne\n\nf", "g"]
    make_row({"messages": talk["messages"][1:3]}, "rows.jsonl", 8, RowSpec(), usage)
    notes, _ = usage_sentences(usage.facts(), "rows.jsonl", "Task qa")
    assert "Task qa: in 1 of the 2 rows of `rows.jsonl` questions follow each other, and are joined." in notes
