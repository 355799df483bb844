"""The tokenizer's own chat template: tools and roles reach it, and what it cannot render is refused."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.data.text.templates import Template
from mtl_opt.data.text.tokens import EncodedRow
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


def test_the_tokenizers_own_template_gets_tools_calls_and_roles(make_tokenizer: Callable[..., Tokenizer]) -> None:
    tokenizer = make_tokenizer(chat_template=FULL_CHAT)
    encoder = Encoder(tokenizer, get_template("tokenizer"), 2000)
    text = tokenizer.decode(encoder.encode([TALK])[0].input_ids)
    assert text.startswith(
        '<tools>[{"type": "function", "function": {"name": "w"}}]</tools><|im_start|>system\nBe brief.<|im_end|>'
    )
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


MakeRow = Callable[..., Row]


def encode(template: Template, row: Row, tokenizer: Tokenizer, cutoff_len: int) -> EncodedRow:
    return Encoder(tokenizer, template, cutoff_len).encode([row])[0]


def test_the_chat_template_writes_its_own_opening_token(
    make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow
) -> None:
    chat = (
        "{{ bos_token }}{{ messages[0].content }}>{% if messages|length > 1 %}{{ messages[1].content }}</s>{% endif %}"
    )
    tokenizer = make_tokenizer(opens=True, chat_template=chat)
    ids = encode(get_template("tokenizer"), make_row(), tokenizer, 500).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_a_tokenizer_without_chat_template_is_refused(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    with pytest.raises(InputError, match="`tokenizer` needs a chat template"):
        encode(get_template("tokenizer"), make_row(), plain_tokenizer, 500)


@pytest.mark.parametrize(
    "chat",
    [
        # As a text: the generation prompt opens a thought that the finished dialogue does not show.
        "{{ messages[0].content }}A:{% if add_generation_prompt %}?{% else %}{{ messages[1].content }}{% endif %}",
        # As tokens: the blank before the answer is merged with its first word.
        "Q:{{ messages[0].content }} A: {% if messages|length > 1 %}{{ messages[1].content }}{% endif %}",
    ],
)
def test_a_chat_template_whose_prompt_is_no_prefix_is_refused(
    chat: str, make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow
) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl`, line 1: .*not a token prefix"):
        encode(get_template("tokenizer"), make_row(output="customer"), make_tokenizer(chat_template=chat), 500)


@pytest.mark.parametrize("chat", ["{{ raise_exception('no') }}", "{% if %}", "{{ 1 + messages[0].content }}"])
def test_a_chat_template_that_fails_is_an_input_error(
    chat: str, make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow
) -> None:
    with pytest.raises(InputError, match="chat template fails"):
        encode(get_template("tokenizer"), make_row(), make_tokenizer(chat_template=chat), 500)


def test_a_chat_template_that_hides_the_user_text_is_cut_from_the_left(
    make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow
) -> None:
    chat = "U {{ messages[0].content | upper }}\n{% if messages|length > 1 %}{{ messages[1].content }}</s>{% endif %}"
    tokenizer = make_tokenizer(chat_template=chat)
    row = make_row("客户 " * 30, "yes")
    whole = encode(get_template("tokenizer"), row, tokenizer, 1000)
    assert encode(get_template("tokenizer"), row, tokenizer, 20).input_ids == whole.input_ids[-20:]
