"""Text to tokens: tokenise many texts at once, mask the prompt, and cut a row that is too long where it hurts least."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.errors import InputError


@dataclass(frozen=True)
class EncodedRow:
    """Hold the tokens of one row.

    Attributes:
        input_ids: Prompt and answer.
        labels: `IGNORE_INDEX` on the prompt, the token itself on the answer; not shifted.
        shortened: Whether tokens were cut to fit `cutoff_len`.
    """

    input_ids: list[int]
    labels: list[int]
    shortened: bool


class Prompt(NamedTuple):
    """Hold one prompt and what is needed to find the user's text among its tokens.

    Attributes:
        text: The prompt as a text.
        ids: Its tokens.
        num_opening: How many of them open the text (beginning of sequence) and stand for no part of it.
        encoding: Knows the characters of each token; None with a tokenizer that is not a fast one.
        frame: What the template puts before and after the user's text.
    """

    text: str
    ids: list[int]
    num_opening: int
    encoding: Any
    frame: tuple[str, str]


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """See to it that rows can be padded: a missing pad token is replaced by the eos token.

    Args:
        tokenizer: Is changed where it has no pad token.

    Returns:
        Sentences on what was changed.

    Raises:
        InputError: If there is no eos token either.
    """
    if tokenizer.pad_token_id is not None:
        return []
    if tokenizer.eos_token_id is None:
        raise InputError("The tokenizer has neither a pad nor an eos token; give it one of them in its configuration.")
    tokenizer.pad_token = tokenizer.eos_token
    return [f"The tokenizer has no pad token; its eos token `{tokenizer.eos_token}` is used for padding."]


def tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], Any]]:
    """Tokenise texts as they are, without tokens around them.

    Args:
        texts: At least one text.
        tokenizer: Any tokenizer of transformers.

    Returns:
        Per text its token ids and what knows their characters (None with a tokenizer that is not a fast one).
    """
    batch = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return list(zip(batch["input_ids"], batch.encodings or [None] * len(texts), strict=True))


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Find the tokens, such as a beginning of sequence, that the tokenizer itself puts before a text.

    Args:
        tokenizer: Any tokenizer of transformers.

    Returns:
        Their ids; often none or one.
    """
    ((plain, _),) = tokenise(["a"], tokenizer)
    whole = tokenizer("a")["input_ids"]
    starts = range(len(whole) - len(plain) + 1)
    return whole[: next((start for start in starts if whole[start : start + len(plain)] == plain), 0)]


def fit(prompt: Prompt, answer: list[int], cutoff_len: int, tokenizer: PreTrainedTokenizerBase) -> EncodedRow:
    """Join prompt and answer, cut to `cutoff_len` tokens: the prompt first, the answer only where it alone is too long.

    Args:
        prompt: The prompt.
        answer: Tokens of the answer, at least one.
        cutoff_len: Largest number of tokens, at least 2.
        tokenizer: The one that made the tokens.

    Returns:
        The row; at least one token of the prompt stays, since a causal model predicts nothing at the first position.
    """
    kept_answer = answer[: cutoff_len - 1]
    kept_prompt = cut_prompt(prompt, cutoff_len - len(kept_answer), tokenizer)
    return EncodedRow(
        input_ids=kept_prompt + kept_answer,
        labels=[IGNORE_INDEX] * len(kept_prompt) + kept_answer,
        shortened=len(kept_prompt) < len(prompt.ids) or len(kept_answer) < len(answer),
    )


def cut_prompt(prompt: Prompt, num_tokens: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Cut a prompt from the left of the user's text, then from the left of what is around it.

    Args:
        prompt: The prompt.
        num_tokens: How many tokens may stay.
        tokenizer: The one that made the tokens.

    Returns:
        The tokens that stay.

    Raises:
        InputError: If no token may stay.
    """
    if num_tokens < 1:
        raise InputError(f"A prompt needs room for at least 1 token, got {num_tokens}; raise `cutoff_len`.")
    excess = len(prompt.ids) - num_tokens
    if excess <= 0:
        return prompt.ids
    first, last = user_span(prompt, tokenizer)
    kept = prompt.ids[:first] + prompt.ids[min(first + excess, last) :]
    return kept[-num_tokens:]


def user_span(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Find the tokens of the user's text: those that end inside it.

    So a token that holds the frame's last blank and the user's first word belongs to the user, and one that holds the
    user's last letter and the frame behind it belongs to the frame.

    Args:
        prompt: The prompt.
        tokenizer: The one that made the tokens.

    Returns:
        First token of the user's text and the first one behind it; all tokens where the frame is not known.
    """
    before, after = prompt.frame
    start, end = len(before), len(prompt.text) - len(after)
    if end < start or not (prompt.text.startswith(before) and prompt.text.endswith(after)):
        return 0, len(prompt.ids)
    if prompt.encoding is None:
        # Tokenised apart, the frame may differ by a token or two where it touches the user's text: near enough.
        (head, _), (tail, _) = tokenise([before, after], tokenizer)
        first = min(prompt.num_opening + len(head), len(prompt.ids))
        return first, max(first, len(prompt.ids) - len(tail))
    ends = list(accumulate((end for _, end in prompt.encoding.offsets), max))
    return prompt.num_opening + bisect_right(ends, start), prompt.num_opening + bisect_right(ends, end)
