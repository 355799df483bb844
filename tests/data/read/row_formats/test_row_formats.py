"""Every format: inferred from the keys, and bad records refused with file, line and rule."""

from typing import Any

import pytest

from mtl_opt.data.read.row_formats import RowSpec, infer_format, make_row
from mtl_opt.data.read.rows import Row
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
def test_a_format_is_inferred_from_the_keys(record: dict[str, Any], name: str) -> None:
    assert infer_format(record) == name


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
        ({"messages": [ASK, ASK]}, {}, "ends without an answer"),
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
