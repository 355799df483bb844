from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.tokens import Prompt, check_tokenizer, cut_prompt, opening_ids, tokenise, user_span
from mtl_opt.errors import InputError

Tokenizer = PreTrainedTokenizerBase


def prompt_of(before: str, user: str, after: str, tokenizer: Tokenizer) -> Prompt:
    text = before + user + after
    ((ids, encoding),) = tokenise([text], tokenizer)
    return Prompt(text, ids, 0, encoding, (before, after))


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


def test_the_users_tokens_are_found_among_the_frames(real_tokenizer: Tokenizer) -> None:
    prompt = prompt_of("Human: ", "从前 there", "</s>\nAssistant:", real_tokenizer)
    first, last = user_span(prompt, real_tokenizer)
    assert real_tokenizer.decode(prompt.ids[:first]) == "Human: "
    assert real_tokenizer.decode(prompt.ids[first:last]) == "从前 there"
    assert real_tokenizer.decode(prompt.ids[last:]) == "</s> \nAssistant:"


def test_an_empty_user_text_has_no_tokens(plain_tokenizer: Tokenizer) -> None:
    first, last = user_span(prompt_of("Human:", "", "</s>", plain_tokenizer), plain_tokenizer)
    assert first == last


def test_with_an_unknown_frame_all_tokens_are_the_users(plain_tokenizer: Tokenizer) -> None:
    prompt = prompt_of("a", "b", "c", plain_tokenizer)._replace(frame=("x", "y"))
    assert user_span(prompt, plain_tokenizer) == (0, len(prompt.ids))


def test_a_prompt_that_fits_is_not_cut(plain_tokenizer: Tokenizer) -> None:
    prompt = prompt_of("Human:", "a b c", "</s>", plain_tokenizer)
    assert cut_prompt(prompt, len(prompt.ids), plain_tokenizer) == prompt.ids


def test_a_prompt_without_room_is_refused(plain_tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="at least 1 token, got 0"):
        cut_prompt(prompt_of("Human:", "a", "</s>", plain_tokenizer), 0, plain_tokenizer)
