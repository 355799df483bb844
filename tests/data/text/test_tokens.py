from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.text.tokens import (
    Part,
    Segment,
    Tokens,
    check_tokenizer,
    cut_row,
    fit_sizes,
    kinds_of_tokens,
    opening_ids,
    tokenise,
)
from mtl_opt.errors import InputError

Tokenizer = PreTrainedTokenizerBase


def test_a_tokenizer_with_pad_token_is_left_alone(make_tokenizer: Callable[..., Tokenizer]) -> None:
    tokenizer = make_tokenizer(eos_token=None)
    assert check_tokenizer(tokenizer) == []
    assert tokenizer.pad_token == "<pad>"


def test_a_missing_pad_token_is_replaced_by_eos_with_a_note(make_tokenizer: Callable[..., Tokenizer]) -> None:
    tokenizer = make_tokenizer(pad_token=None)
    (note,) = check_tokenizer(tokenizer)
    assert "`</s>`" in note
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None
    assert check_tokenizer(tokenizer) == []


def test_a_tokenizer_with_neither_pad_nor_eos_is_refused(make_tokenizer: Callable[..., Tokenizer]) -> None:
    with pytest.raises(InputError, match="neither a pad nor an eos token"):
        check_tokenizer(make_tokenizer(pad_token=None, eos_token=None))


def test_the_opening_token_is_what_the_tokenizer_puts_in_front(
    bos_tokenizer: Tokenizer, plain_tokenizer: Tokenizer, real_tokenizer: Tokenizer
) -> None:
    assert opening_ids(bos_tokenizer) == [bos_tokenizer.bos_token_id]
    assert opening_ids(real_tokenizer) == [real_tokenizer.bos_token_id]
    assert opening_ids(plain_tokenizer) == []


def kinds(parts: list[Part], tokenizer: Tokenizer) -> list[tuple[str, str]]:
    (ids,) = tokenise(["".join(part.text for part in parts)], tokenizer)
    return [(tokenizer.decode([i]), kind) for i, kind in zip(ids, kinds_of_tokens(parts, ids, tokenizer), strict=True)]


def test_every_token_belongs_to_the_part_in_which_it_ends(real_tokenizer: Tokenizer) -> None:
    parts = [Part("Human: ", "frame"), Part("从前 there", "question"), Part("</s>\nAssistant:", "frame")]
    found = kinds(parts, real_tokenizer)
    asked = "".join(text for text, kind in found if kind == "question")
    assert asked.endswith("there")
    assert [kind for _, kind in found][:2] == ["frame", "frame"]
    assert found[-1][1] == "frame"


def test_an_empty_part_has_no_tokens(plain_tokenizer: Tokenizer) -> None:
    found = kinds([Part("Human:", "frame"), Part("", "question"), Part("</s>", "frame")], plain_tokenizer)
    assert {kind for _, kind in found} == {"frame"}


def segments(*answers: int, asked: tuple[str, ...] = ("frame", "question", "question")) -> list[Segment]:
    found = []
    for number, size in enumerate(answers):
        found.append(Segment([100 * number + i for i in range(len(asked))], list(asked), False))
        found.append(Segment([1000 * (number + 1) + i for i in range(size)], ["answer"] * size, True))
    return found


def test_tools_go_first_then_history_then_system_then_the_question() -> None:
    kinds = ["frame", "tools", "history", "system", "question", "frame"]
    row = [Segment(list(range(6)), kinds, False), Segment([9], ["answer"], True)]
    lost = []
    for cutoff_len in range(7, 1, -1):
        kept = cut_row(row, cutoff_len, "here").ids
        lost.append([i for i in range(6) if i not in kept])
    assert lost == [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_every_answer_keeps_a_part_and_the_longest_loses_most() -> None:
    found = cut_row(segments(50, 2, 20), 20, "here")
    assert len(found.ids) == 20
    assert found.answer_cut
    kept = [sum(1000 * n <= i < 1000 * (n + 1) for i in found.ids) for n in (1, 2, 3)]
    assert kept == [8, 2, 9]
    assert found.ids[0] == 2  # the last token asked stays before the first answer


def test_more_answers_than_tokens_are_refused() -> None:
    with pytest.raises(InputError, match=r"here: 4 answers do not fit into `cutoff_len` 4"):
        cut_row(segments(3, 3, 3, 3), 4, "here")


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), room=st.integers(0, 100))
def test_shares_of_a_room_are_as_even_as_the_sizes_allow(sizes: list[int], room: int) -> None:
    found = fit_sizes(sizes, room)
    assert sum(found) == min(room, sum(sizes))
    assert all(0 <= kept <= size for kept, size in zip(found, sizes, strict=True))
    level = max(found, default=0)
    assert all(kept >= level - 1 or kept == size for kept, size in zip(found, sizes, strict=True))


def test_labels_are_the_learnt_tokens_at_their_place() -> None:
    row = Tokens([1, 2, 3, 4, 5], (1, 2, 3, 5)).row()
    assert row.labels == [IGNORE_INDEX, 2, IGNORE_INDEX, 4, 5]


def test_tokenising_is_what_the_tokenizer_does_without_tokens_around_it(
    real_tokenizer: Tokenizer, bos_tokenizer: Tokenizer
) -> None:
    texts = ["Once upon a time", "从前 there", "</s> x", ""]
    for tokenizer in (real_tokenizer, bos_tokenizer, ByT5Tokenizer()):
        assert tokenise(texts, tokenizer) == tokenizer(texts, add_special_tokens=False)["input_ids"]
    bos_tokenizer.backend_tokenizer.enable_truncation(1)
    assert len(tokenise(texts, bos_tokenizer)[0]) > 1
