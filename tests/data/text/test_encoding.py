"""Rows as tokens: prompt masked, answer learnt, long rows truncated where it hurts least."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.read.rows import Row
from mtl_opt.data.text.encoding import Encoder, encode_rows
from mtl_opt.data.text.template_names import TEMPLATES, get_template
from mtl_opt.data.text.templates import Template
from mtl_opt.data.text.tokens import EncodedRow
from mtl_opt.errors import InputError

Tokenizer = PreTrainedTokenizerBase
MakeRow = Callable[..., Row]
OPENS = {"llama2": "<s>", "llama3": "<s>"}
every_template = pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)


def encode(template: Template, row: Row, tokenizer: Tokenizer, cutoff_len: int) -> EncodedRow:
    return Encoder(tokenizer, template, cutoff_len).encode([row])[0]


def encode_prompt(template: Template, row: Row, tokenizer: Tokenizer, cutoff_len: int) -> list[int]:
    return Encoder(tokenizer, template, cutoff_len).prompt(row)


def texts(template: Template, row: Row, tokenizer: Tokenizer) -> list[str]:
    return Encoder(tokenizer, template, 500).texts(row)


def answer_of(labels: list[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode([label for label in labels if label != IGNORE_INDEX])


def test_a_task_prefix_stands_before_the_first_question_and_is_kept_in_a_long_row(
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


def test_truncation_can_be_an_error(plain_tokenizer: Tokenizer, make_row: Callable[..., Row]) -> None:
    encoder = Encoder(plain_tokenizer, get_template("default"), 8, allow_cutting=False)
    with pytest.raises(InputError, match=r"rows\.jsonl`, line 1: the row has \d+ tokens, `cutoff_len` is 8"):
        encoder.encode([make_row("word " * 20)])


@every_template
def test_a_row_that_fits_is_prompt_and_answer_with_the_prompt_masked(
    template: Template, chat_tokenizer: Tokenizer, make_row: MakeRow
) -> None:
    row = make_row("Is the customer angry?", "是的，非常生气", text="客户：怎么还没到！")
    encoded = encode(template, row, chat_tokenizer, 500)
    prompt = encode_prompt(template, row, chat_tokenizer, 500)
    assert not encoded.shortened
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels == [IGNORE_INDEX] * len(prompt) + encoded.input_ids[len(prompt) :]
    assert chat_tokenizer.decode(prompt) == OPENS.get(template.name, "") + texts(template, row, chat_tokenizer)[0]
    assert answer_of(encoded.labels, chat_tokenizer) == texts(template, row, chat_tokenizer)[1]


@pytest.mark.parametrize("name", ["default", "alpaca"])
def test_the_real_eos_token_is_learnt(
    name: str, real_tokenizer: Tokenizer, plain_tokenizer: Tokenizer, make_row: MakeRow
) -> None:
    for tokenizer in (real_tokenizer, plain_tokenizer):
        assert tokenizer.eos_token_id in encode(get_template(name), make_row(), tokenizer, 500).labels


def test_the_end_of_a_chatml_answer_is_learnt(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    end = plain_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in encode(get_template("chatml"), make_row(), plain_tokenizer, 500).labels


def test_the_opening_token_is_there_where_the_tokenizer_adds_one(
    bos_tokenizer: Tokenizer, plain_tokenizer: Tokenizer, make_row: MakeRow
) -> None:
    template = get_template("default")
    with_bos = encode(template, make_row(), bos_tokenizer, 500).input_ids
    assert with_bos == [bos_tokenizer.bos_token_id, *encode(template, make_row(), plain_tokenizer, 500).input_ids]


def test_the_real_tokenizer_sees_the_text_it_would_see_by_itself(real_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    template = get_template("default")
    row = make_row("Once upon a time 从前", "yes")
    prompt = encode_prompt(template, row, real_tokenizer, 500)
    assert prompt == real_tokenizer(texts(template, row, real_tokenizer)[0])["input_ids"]
    assert real_tokenizer.decode(encode(template, row, real_tokenizer, 500).input_ids[len(prompt) :]) == "yes</s> \n"


def test_an_answer_without_tokens_is_refused(make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow) -> None:
    chat = "{{ messages[0].content }}"
    with pytest.raises(InputError, match="does not write the text of an answer"):
        encode(get_template("tokenizer"), make_row(), make_tokenizer(chat_template=chat), 500)


def test_a_cutoff_without_room_for_two_tokens_is_refused(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    with pytest.raises(InputError, match="`cutoff_len` must be at least 2"):
        encode_rows([make_row()], plain_tokenizer, get_template("default"), 1)


def test_no_rows_give_no_tokens(plain_tokenizer: Tokenizer) -> None:
    assert encode_rows([], plain_tokenizer, get_template("default"), 10) == []


@every_template
def test_a_long_row_loses_the_left_of_the_user_text_and_keeps_the_frame(
    template: Template, chat_tokenizer: Tokenizer, make_row: MakeRow, frames: dict[str, tuple[str, str]]
) -> None:
    row = make_row("客户 customer " * 50 + "angry about the 信用卡", "是的")
    whole = encode(template, row, chat_tokenizer, 10_000)
    cut = encode(template, row, chat_tokenizer, len(whole.input_ids) - 30)
    before, after = frames[template.name]
    prompt = chat_tokenizer.decode(cut.input_ids[: cut.labels.count(IGNORE_INDEX)])
    assert cut.shortened
    assert len(cut.input_ids) == len(whole.input_ids) - 30
    opens = OPENS.get(template.name, "")
    assert prompt.startswith(
        opens + before.rstrip(" ")
    )  # the frame's last blank may be one token with the user's first word
    assert prompt.endswith("angry about the 信用卡" + after)
    assert answer_of(cut.labels, chat_tokenizer) == answer_of(whole.labels, chat_tokenizer)


def test_where_the_frame_does_not_fit_it_is_cut_from_the_left(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    cut = encode(get_template("default"), make_row("What? " * 20, "yes"), plain_tokenizer, 8)
    whole = encode(get_template("default"), make_row("", "yes", text="a"), plain_tokenizer, 100)
    assert cut.input_ids == whole.input_ids[-8:]


def test_an_answer_too_long_for_itself_loses_its_right(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    row = make_row("What?", "信用卡 " * 50)
    whole = encode(get_template("default"), row, plain_tokenizer, 10_000)
    cut = encode(get_template("default"), row, plain_tokenizer, 10)
    answer = [label for label in whole.labels if label != IGNORE_INDEX]
    assert cut.labels == [IGNORE_INDEX, *answer[:9]]
    assert cut.shortened


def test_a_prompt_for_generation_is_cut_like_a_row(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    template = get_template("chatml")
    row = make_row("customer " * 50, "yes")
    cut = encode(template, row, plain_tokenizer, 40)
    num_prompt = cut.labels.count(IGNORE_INDEX)
    assert encode_prompt(template, row, plain_tokenizer, num_prompt) == cut.input_ids[:num_prompt]


def test_a_slow_tokenizer_keeps_the_frame_too(make_row: MakeRow) -> None:
    tokenizer = ByT5Tokenizer()
    row = make_row("问" * 60, "yes")
    whole = encode(get_template("default"), row, tokenizer, 1000)
    cut = encode(get_template("default"), row, tokenizer, 50)
    assert len(cut.input_ids) == 50
    assert tokenizer.decode(cut.input_ids).startswith("Human: ")
    assert "</s>Assistant:yes</s>" in tokenizer.decode(cut.input_ids).replace("\n", "")
    assert cut.input_ids[-20:] == whole.input_ids[-20:]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(TEMPLATES)),
    user=st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(str.strip),
    answer=st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(str.strip),
    cutoff_len=st.integers(2, 120),
)
def test_cutting_keeps_its_promises(
    chat_tokenizer: Tokenizer,
    make_row: MakeRow,
    frames: dict[str, tuple[str, str]],
    name: str,
    user: str,
    answer: str,
    cutoff_len: int,
) -> None:
    template = get_template(name)
    row = make_row(user, answer)
    whole, cut = (encode(template, row, chat_tokenizer, n) for n in (10_000, cutoff_len))
    num_prompt = cut.labels.count(IGNORE_INDEX)
    full_answer = [label for label in whole.labels if label != IGNORE_INDEX]
    assert not whole.shortened
    assert len(cut.input_ids) == min(cutoff_len, len(whole.input_ids))
    assert cut.shortened == (len(whole.input_ids) > cutoff_len)
    assert num_prompt >= 1
    assert cut.labels == [IGNORE_INDEX] * num_prompt + cut.input_ids[num_prompt:]
    assert cut.input_ids[num_prompt:] == full_answer[: cutoff_len - 1] != []
    after = chat_tokenizer(frames[name][1], add_special_tokens=False)["input_ids"]
    kept = min(len(after), num_prompt)
    # The frame's first tokens may be merged with the user's last letters: only what follows is compared.
    assert cut.input_ids[:num_prompt][num_prompt - kept :][2:] == after[len(after) - kept :][2:]


@pytest.mark.parametrize("name", ["default", "tokenizer"])
def test_rows_are_tokenised_quickly(name: str, chat_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    rows = [make_row(f"Is customer {i} angry?", "是的", text="客户：怎么还没到！") for i in range(6000)]
    start = time.perf_counter()
    encoded = encode_rows(rows, chat_tokenizer, get_template(name), 64)
    assert len(encoded) == 6000
    assert time.perf_counter() - start < 10  # about one second; the rest is room for a busy machine


def test_many_rows_are_the_same_as_one_by_one(bos_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    template = get_template("alpaca")
    rows = [make_row(f"客户 {i} " * (i % 9 + 1), f"answer {i}") for i in range(1100)]
    encoded = encode_rows(rows, bos_tokenizer, template, 60)
    for i in (0, 8, 999, 1000, 1099):
        assert encoded[i] == encode(template, rows[i], bos_tokenizer, 60)
