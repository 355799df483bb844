"""Tokens of rows: batched tokenisation, the compact and the labelled form of a row, and truncation of long rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.errors import InputError

CUT_ORDER = ("tools", "history", "system", "question", "frame")
"""Kinds of text in the order in which a long row loses them, each from its left; answers are truncated last."""


class Part(NamedTuple):
    """Hold a piece of text and its kind: one of `CUT_ORDER`, or `answer`."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Hold the tokens of one row.

    Attributes:
        input_ids: Prompt and answer.
        labels: `IGNORE_INDEX` on the prompt, the token itself on the answer; not shifted.
        shortened: Whether the row was truncated to `cutoff_len`.
        answer_cut: Whether an answer was truncated.
        target: Class index or number of a task whose head has one target per row, NaN where missing; None otherwise.
    """

    input_ids: list[int]
    labels: list[int]
    shortened: bool
    answer_cut: bool = False
    target: float | None = None


class Tokens(NamedTuple):
    """Hold the tokens of one row and the spans that are learnt: the compact form of `EncodedRow`.

    Attributes:
        ids: All tokens.
        spans: Begin and end of every learnt span, flattened.
        shortened: Whether the row was truncated.
        answer_cut: Whether an answer was truncated.
    """

    ids: list[int]
    spans: tuple[int, ...]
    shortened: bool = False
    answer_cut: bool = False

    def row(self) -> EncodedRow:
        """Expand the spans to labels."""
        labels = [IGNORE_INDEX] * len(self.ids)
        for begin, end in zip(self.spans[::2], self.spans[1::2], strict=True):
            labels[begin:end] = self.ids[begin:end]
        return EncodedRow(self.ids, labels, self.shortened, self.answer_cut)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Ensure that rows can be padded: where the pad token is missing, use the eos token.

    Args:
        tokenizer: The tokenizer; modified in place where it has no pad token.

    Returns:
        Sentences for the user about what was changed.

    Raises:
        InputError: If there is no eos token either.
    """
    if tokenizer.pad_token_id is not None:
        return []
    if tokenizer.eos_token_id is None:
        raise InputError("The tokenizer has neither a pad nor an eos token; give it one of them in its configuration.")
    tokenizer.pad_token = tokenizer.eos_token
    return [f"The tokenizer has no pad token; its eos token `{tokenizer.eos_token}` is used for padding."]


def tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokenise texts without special tokens around them."""
    if not texts:
        return []
    if not tokenizer.is_fast:
        return tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    # A call through transformers resets padding and truncation of the backend. The backend alone, which need not keep
    # the character offsets of tokens, is then faster than transformers.
    tokenizer(texts[0], add_special_tokens=False, verbose=False)
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens, such as a beginning of sequence, that the tokenizer itself puts before a text."""
    (plain,) = tokenise(["a"], tokenizer)
    whole = tokenizer("a")["input_ids"]
    starts = range(len(whole) - len(plain) + 1)
    return whole[: next((start for start in starts if whole[start : start + len(plain)] == plain), 0)]


def kinds_of_tokens(parts: Sequence[Part], ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the kind of every token of a text: that of the part in which the token ends."""
    # A token that holds the frame's last blank and the user's first word thus belongs to the user, and one that holds
    # the user's last letter and the frame after it belongs to the frame.
    if tokenizer.is_fast:
        encoding = tokenizer.backend_tokenizer.encode("".join(part.text for part in parts), add_special_tokens=False)
        ends = list(accumulate((end for _, end in encoding.offsets), max))
        limits = list(accumulate(len(part.text) for part in parts))
        kinds, number = [], 0
        for end in ends:
            while number < len(parts) - 1 and end > limits[number]:
                number += 1
            kinds.append(parts[number].kind)
        return kinds
    # Tokenised on its own, a part may differ by a token or two where it touches the next; the longest part absorbs
    # the difference.
    counts = [len(tokens) for tokens in tokenise([part.text for part in parts], tokenizer)]
    longest = counts.index(max(counts))
    counts[longest] = max(0, counts[longest] + len(ids) - sum(counts))
    kinds = [part.kind for part, count in zip(parts, counts, strict=True) for _ in range(count)]
    return (kinds + [parts[-1].kind] * len(ids))[: len(ids)]


class Segment(NamedTuple):
    """Hold the tokens of one question or answer while a row is truncated.

    Attributes:
        ids: Its tokens.
        kinds: Kind of every token: one of `CUT_ORDER`, or `answer`.
        learn: Whether it is learnt.
    """

    ids: list[int]
    kinds: list[str]
    learn: bool


def cut_row(segments: Sequence[Segment], cutoff_len: int, where: str) -> Tokens:
    """Truncate a row: first the prompt, in the order of `CUT_ORDER`; answers only where they alone are too long."""
    room = cutoff_len - 1  # one token of the prompt stays in any case
    answers = [sum(kind == "answer" for kind in segment.kinds) for segment in segments]
    kept = fit_sizes(answers, room)
    if any(count and not kept[i] for i, count in enumerate(answers)):
        raise InputError(
            f"{where}: {sum(map(bool, answers))} answers do not fit into `cutoff_len` {cutoff_len}, not even in part."
        )
    order = [
        (CUT_ORDER.index(kind), i, j)
        for i, segment in enumerate(segments)
        for j, kind in enumerate(segment.kinds)
        if kind != "answer"
    ]
    # The last token before the first answer goes last: the answer is predicted from it.
    first = max((place for place in order if place[1] == 0), key=lambda place: place[2], default=None)
    order.sort(key=lambda place: (place == first, place))
    doomed = {place[1:] for place in order[: max(0, len(order) - (cutoff_len - sum(kept)))]}
    ids: list[int] = []
    spans: list[int] = []
    for i, segment in enumerate(segments):
        begin, left = len(ids), kept[i]
        for j, (token, kind) in enumerate(zip(segment.ids, segment.kinds, strict=True)):
            if kind == "answer":
                left -= 1
            if (left >= 0) if kind == "answer" else (i, j) not in doomed:
                ids.append(token)
        if segment.learn and len(ids) > begin:
            spans += [begin, len(ids)]
    return Tokens(ids, merge_spans(spans), shortened=True, answer_cut=sum(kept) < sum(answers))


def fit_sizes(sizes: Sequence[int], room: int) -> list[int]:
    """Reduce sizes to a sum of at most `room` by lowering the largest ones to a common level."""
    if sum(sizes) <= room:
        return list(sizes)
    level = next(level for level in range(max(sizes), -1, -1) if sum(min(size, level) for size in sizes) <= room)
    found = [min(size, level) for size in sizes]
    left = room - sum(found)
    for i in reversed(range(len(sizes))):  # the remainder goes to the last answers, to which the others lead
        if left and sizes[i] > level:
            found[i] += 1
            left -= 1
    return found


def merge_spans(spans: Sequence[int]) -> tuple[int, ...]:
    """Merge adjacent spans."""
    joined: list[int] = []
    for begin, end in zip(spans[::2], spans[1::2], strict=True):
        if joined and joined[-1] == begin:
            joined[-1] = end
        else:
            joined += [begin, end]
    return tuple(joined)
