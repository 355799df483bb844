"""Dialogues as tokens: what is learnt, what the system and tools become, what a long one loses."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import TEMPLATES, get_template
from mtl_opt.errors import InputError

Tokenizer = PreTrainedTokenizerBase
FULL_CHAT = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
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


def test_the_text_of_a_dialogue_is_exactly_that_of_the_convention(plain_tokenizer: Tokenizer) -> None:
    row = Row("c", "", "d", None, "f", 1, "s", history=(Turn("user", "a"), Turn("assistant", "b")))
    texts = {
        name: "".join(Encoder(plain_tokenizer, get_template(name), 500).texts(row))
        for name in TEMPLATES
        if name != "tokenizer"
    }
    assert texts["default"] == "System: s</s>\nHuman: a</s>\nAssistant:b</s>\nHuman: c</s>\nAssistant:d</s>\n"
    assert texts["llama2"] == "[INST] <<SYS>>\ns\n<</SYS>>\n\na [/INST]b</s><s>[INST] c [/INST]d</s>"
    assert texts["chatml"] == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n"
    )
    assert texts["alpaca"].startswith("s\n\n### Instruction:\na\n\n### Response:\nb</s>\n\n### Instruction:\nc")
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert texts["llama3"].startswith(head.format("system") + "s<|eot_id|>" + head.format("user") + "a<|eot_id|>")


def test_a_task_prefix_stands_before_the_first_thing_asked_and_is_kept_in_a_long_row(
    plain_tokenizer: Tokenizer, make_row: Callable[..., Row]
) -> None:
    encoder = Encoder(plain_tokenizer, get_template("default"), 60, prefix="### Task: {task}", task="情绪")
    assert encoder.texts(make_row("What?"))[0] == "Human: ### Task: 情绪\nWhat?</s>\nAssistant:"
    cut = encoder.encode([make_row("word " * 200)])[0]
    assert cut.shortened
    assert plain_tokenizer.decode(cut.input_ids).startswith("Human: ### Task: 情绪\n")


def test_plain_text_is_learnt_whole_behind_one_token(plain_tokenizer: Tokenizer, bos_tokenizer: Tokenizer) -> None:
    row = Row("", "", "从前 there was", None, "f", 1, asks="nobody")
    for tokenizer, first in ((plain_tokenizer, "</s>"), (bos_tokenizer, "<s>")):
        tokens = Encoder(tokenizer, get_template("chatml"), 100).encode([row])[0]
        assert tokenizer.decode(tokens.input_ids) == first + "从前 there was</s>"
        assert tokens.labels == [IGNORE_INDEX, *tokens.input_ids[1:]]
    cut = Encoder(plain_tokenizer, get_template("chatml"), 5).encode([row])[0]
    assert (len(cut.input_ids), cut.answer_cut) == (5, True)


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


def test_truncation_can_be_an_error(plain_tokenizer: Tokenizer, make_row: Callable[..., Row]) -> None:
    encoder = Encoder(plain_tokenizer, get_template("default"), 8, allow_cutting=False)
    with pytest.raises(InputError, match=r"rows\.jsonl`, line 1: the row has \d+ tokens, `cutoff_len` is 8"):
        encoder.encode([make_row("word " * 20)])


def test_the_tokenizers_own_template_gets_tools_calls_and_roles(make_tokenizer: Callable[..., Tokenizer]) -> None:
    tokenizer = make_tokenizer(chat_template=FULL_CHAT)
    encoder = Encoder(tokenizer, get_template("tokenizer"), 2000)
    text = tokenizer.decode(encoder.encode([TALK])[0].input_ids)
    assert text.startswith('<tools>[{"name": "w"}]</tools><|im_start|>system\nBe brief.<|im_end|>')
    assert "CALL w<|im_end|>\n<|im_start|>tool\nsunny<|im_end|>" in text
    assert learnt(encoder, TALK) == ["没有。<|im_end|>\n", "CALL w<|im_end|>\n", "It is sunny.<|im_end|>\n"]
    prompt = encoder.prompt(TALK)
    assert encoder.encode([TALK])[0].input_ids[: len(prompt)] == prompt
    short = Encoder(tokenizer, get_template("tokenizer"), len(encoder.encode([TALK])[0].input_ids) - 8)
    cut = short.encode([TALK])[0]
    assert cut.shortened
    assert learnt(short, TALK) == learnt(encoder, TALK)


def test_a_chat_template_that_rewrites_history_is_refused_unless_history_is_masked(
    make_tokenizer: Callable[..., Tokenizer],
) -> None:
    forgets = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last or m.role == 'user' else '...' }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = make_tokenizer(chat_template=forgets)
    row = Row("c", "", "d", None, "f.jsonl", 1, history=(Turn("user", "a"), Turn("assistant", "b")))
    with pytest.raises(InputError, match="`mask_history: true`"):
        Encoder(tokenizer, get_template("tokenizer"), 500).encode([row])
    assert learnt(Encoder(tokenizer, get_template("tokenizer"), 500, mask_history=True), row) == ["d<|im_end|>\n"]
