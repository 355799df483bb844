"""Dialogues as tokens: which answers are learnt, and what a long dialogue loses."""

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import TEMPLATES, get_template

Tokenizer = PreTrainedTokenizerBase
HISTORY = (Turn("user", "年费？"), Turn("assistant", "没有。"), Turn("user", "weather?"), Turn("call", '{"name": "w"}'))
TALK = Row("sunny", "", "It is sunny.", "t", "f.jsonl", 1, "Be brief.", '[{"name": "w"}]', HISTORY, "observation")


def learnt(encoder: Encoder, row: Row) -> list[str]:
    tokens = encoder.encode([row])[0]
    pieces, before = [], False
    for label in tokens.labels:
        if label != IGNORE_INDEX:
            pieces = pieces if before else [*pieces, []]
            pieces[-1].append(label)
        before = label != IGNORE_INDEX
    return [encoder.tokenizer.decode(piece) for piece in pieces]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "tokenizer"])
def test_every_answer_is_learnt_or_the_last_alone(name: str, plain_tokenizer: Tokenizer) -> None:
    encoder = Encoder(plain_tokenizer, get_template(name), 2000)
    found = learnt(encoder, TALK)
    assert [text.split("<")[0].strip() for text in found] == ["没有。", '{"name": "w"}', "It is sunny."]
    last = Encoder(plain_tokenizer, get_template(name), 2000, mask_history=True)
    assert learnt(last, TALK) == found[-1:]
    assert last.encode([TALK])[0].input_ids == encoder.encode([TALK])[0].input_ids
    whole = Encoder(plain_tokenizer, get_template(name), 2000, learn_prompt=True)
    tokens = whole.encode([TALK])[0]
    assert tokens.labels[len(whole.opening) :] == tokens.input_ids[len(whole.opening) :]


@pytest.mark.parametrize("name", ["default", "chatml", "llama2"])
def test_a_long_dialogue_loses_tools_then_history_and_keeps_every_answer(name: str, plain_tokenizer: Tokenizer) -> None:
    long = Row(**{**{s: getattr(TALK, s) for s in Row.__slots__}, "tools": '[{"name": "w"}]' + " " * 3 + "x" * 80})
    whole = Encoder(plain_tokenizer, get_template(name), 2000).encode([long])[0]
    answers = learnt(Encoder(plain_tokenizer, get_template(name), 2000), long)
    less = len(whole.input_ids) - 30
    cut = Encoder(plain_tokenizer, get_template(name), less).encode([long])[0]
    text = plain_tokenizer.decode(cut.input_ids)
    assert (len(cut.input_ids), cut.shortened, cut.answer_cut) == (less, True, False)
    assert "年费？" in text
    assert "Be brief." in text
    assert learnt(Encoder(plain_tokenizer, get_template(name), less), long) == answers
    tiny = Encoder(plain_tokenizer, get_template(name), 12)
    assert len(learnt(tiny, long)) >= 1
    assert tiny.encode([long])[0].answer_cut
