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

MakeRow = Callable[..., Row]
Tokenizer = PreTrainedTokenizerBase
FRAMES = {
    "default": ("Human: ", "</s>\nAssistant:"),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n",
        "\n\n### Response:\n",
    ),
    "chatml": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    "tokenizer": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
}
ENDS = {"default": "</s>\n", "alpaca": "</s>\n\n", "chatml": "<|im_end|>\n", "tokenizer": "<|im_end|>\n"}
IM_USER = "<|im_start|>user\n"
FRAMES["qwen"] = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n" + IM_USER,
    FRAMES["chatml"][1],
)
FRAMES["llama2"] = ("[INST] ", " [/INST]")
FRAMES["llama3"] = (
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
)
ENDS |= {"qwen": "<|im_end|>\n", "llama2": "</s>", "llama3": "<|eot_id|>"}
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


@every_template
def test_the_texts_are_exactly_those_of_the_convention(
    template: Template, chat_tokenizer: Tokenizer, make_row: MakeRow
) -> None:
    before, after = FRAMES[template.name]
    row = make_row("年费是多少？", "没有。", text="卡片：金卡")
    assert texts(template, row, chat_tokenizer)[0] == f"{before}年费是多少？\n卡片：金卡{after}"
    assert texts(template, row, chat_tokenizer)[1] == f"没有。{ENDS[template.name]}"


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


@pytest.mark.parametrize(
    ("name", "stop_text"),
    [
        ("default", None),
        ("alpaca", None),
        ("chatml", "<|im_end|>"),
        ("qwen", "<|im_end|>"),
        ("llama2", None),
        ("llama3", "<|eot_id|>"),
        ("tokenizer", "<|im_end|>"),
    ],
)
def test_every_template_knows_where_a_generated_answer_ends(
    name: str, stop_text: str | None, chat_tokenizer: Tokenizer
) -> None:
    assert get_template(name).stop_text(chat_tokenizer) == stop_text


def test_an_unknown_template_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"Unknown template `chat_ml`. Did you mean `chatml`\?"):
        get_template("chat_ml")


def test_a_tokenizer_without_chat_template_is_refused(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    with pytest.raises(InputError, match="`tokenizer` needs a chat template"):
        encode(get_template("tokenizer"), make_row(), plain_tokenizer, 500)


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


def test_an_answer_without_tokens_is_refused(make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow) -> None:
    chat = "{{ messages[0].content }}"
    with pytest.raises(InputError, match="no token of the answer"):
        encode(get_template("tokenizer"), make_row(), make_tokenizer(chat_template=chat), 500)


def test_a_cutoff_without_room_for_two_tokens_is_refused(plain_tokenizer: Tokenizer, make_row: MakeRow) -> None:
    with pytest.raises(InputError, match="`cutoff_len` must be at least 2"):
        encode_rows([make_row()], plain_tokenizer, get_template("default"), 1)


def test_no_rows_give_no_tokens(plain_tokenizer: Tokenizer) -> None:
    assert encode_rows([], plain_tokenizer, get_template("default"), 10) == []


@every_template
def test_a_long_row_loses_the_left_of_the_user_text_and_keeps_the_frame(
    template: Template, chat_tokenizer: Tokenizer, make_row: MakeRow
) -> None:
    row = make_row("客户 customer " * 50 + "angry about the 信用卡", "是的")
    whole = encode(template, row, chat_tokenizer, 10_000)
    cut = encode(template, row, chat_tokenizer, len(whole.input_ids) - 30)
    before, after = FRAMES[template.name]
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


def test_a_chat_template_that_hides_the_user_text_is_cut_from_the_left(
    make_tokenizer: Callable[..., Tokenizer], make_row: MakeRow
) -> None:
    chat = "U {{ messages[0].content | upper }}\n{% if messages|length > 1 %}{{ messages[1].content }}</s>{% endif %}"
    tokenizer = make_tokenizer(chat_template=chat)
    row = make_row("客户 " * 30, "yes")
    whole = encode(get_template("tokenizer"), row, tokenizer, 1000)
    assert encode(get_template("tokenizer"), row, tokenizer, 20).input_ids == whole.input_ids[-20:]


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
    chat_tokenizer: Tokenizer, make_row: MakeRow, name: str, user: str, answer: str, cutoff_len: int
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
    after = chat_tokenizer(FRAMES[name][1], add_special_tokens=False)["input_ids"]
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
