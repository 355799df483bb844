"""Templates: the exact text around questions and answers, and the end of a generated answer."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import TEMPLATES, get_template
from mtl_opt.data.text.templates import Template
from mtl_opt.data.text.tokens import EncodedRow
from mtl_opt.errors import InputError

Tokenizer = PreTrainedTokenizerBase
MakeRow = Callable[..., Row]
ENDS = {
    "default": "</s>\n", "alpaca": "</s>\n\n", "chatml": "<|im_end|>\n", "tokenizer": "<|im_end|>\n",
    "qwen": "<|im_end|>\n", "llama2": "</s>", "llama3": "<|eot_id|>",
}  # fmt: skip
every_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)


def encode(template: Template, row: Row, tokenizer: Tokenizer, cutoff_len: int) -> EncodedRow:
    return Encoder(tokenizer, template, cutoff_len).encode([row])[0]


def texts(template: Template, row: Row, tokenizer: Tokenizer) -> list[str]:
    return Encoder(tokenizer, template, 500).texts(row)


def answer_of(labels: list[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode([label for label in labels if label != IGNORE_INDEX])


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


@every_template
def test_the_texts_are_exactly_those_of_the_convention(
    template: Template, chat_tokenizer: Tokenizer, make_row: MakeRow, frames: dict[str, tuple[str, str]]
) -> None:
    before, after = frames[template.name]
    row = make_row("年费是多少？", "没有。", text="卡片：金卡")
    gap = "\n\n### Input:\n" if template.name == "alpaca" else "\n"
    assert texts(template, row, chat_tokenizer)[0] == f"{before}年费是多少？{gap}卡片：金卡{after}"
    assert texts(template, row, chat_tokenizer)[1] == f"没有。{ENDS[template.name]}" + "</s>" * (
        template.name == "llama3"
    )


@pytest.mark.parametrize(
    ("name", "end", "stop"),
    [
        ("default", "</s>", None),
        ("alpaca", "</s>", None),
        ("chatml", "<|im_end|>", None),
        ("qwen", "<|im_end|>", None),
        ("llama2", "</s>", None),
        ("llama3", "</s>", "<|eot_id|>"),  # no token of this tokenizer: eos is learnt after it
        ("tokenizer", "<|im_end|>", None),
    ],
)
def test_every_template_knows_what_ends_an_answer(
    name: str, end: str, stop: str | None, chat_tokenizer: Tokenizer, make_row: MakeRow
) -> None:
    encoder = Encoder(chat_tokenizer, get_template(name), 500)
    assert encoder.frame.stop == stop
    assert chat_tokenizer.decode(encoder.frame.ends[:1]) == end
    assert end in answer_of(encoder.encode([make_row()])[0].labels, chat_tokenizer)


def test_an_unknown_template_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"Unknown template `chat_ml`. Did you mean `chatml`\?"):
        get_template("chat_ml")


@pytest.mark.parametrize("name", ["default", "alpaca"])
def test_a_tokenizer_without_eos_token_is_refused_where_the_template_needs_one(
    name: str, make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow
) -> None:
    with pytest.raises(InputError, match=f"`{name}` needs an eos token"):
        encode(get_template(name), make_row(), make_tokenizer(eos_token=None), 500)


def test_chatml_needs_no_eos_token(make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow) -> None:
    tokenizer = make_tokenizer(eos_token=None)
    labels = encode(get_template("chatml"), make_row(output="no"), tokenizer, 500).labels
    assert answer_of(labels, tokenizer) == "no<|im_end|>\n"


def test_alpaca_writes_the_input_in_a_block_of_its_own(plain_tokenizer, make_row) -> None:
    row = make_row("Add.", text="1 and 2")
    assert (
        Encoder(plain_tokenizer, get_template("alpaca"), 500)
        .texts(row)[0]
        .endswith("### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n")
    )
    assert "### Input" not in Encoder(plain_tokenizer, get_template("alpaca"), 500).texts(make_row("Add."))[0]
    assert "Add.\n1 and 2" in Encoder(plain_tokenizer, get_template("chatml"), 500).texts(row)[0]
