"""Text to tokens: tokenise many texts at once, mask the prompt, and cut a row that is too long where it hurts least."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.errors import InputError

CUT_ORDER = ("tools", "history", "system", "question", "frame")
"""What a long row loses, in this order, each from its left; answers only where they alone are too long."""


class Part(NamedTuple):
    """Hold a piece of text of one kind: one of `CUT_ORDER`, or `answer`."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Hold the tokens of one row.

    Attributes:
        input_ids: Prompt and answer.
        labels: `IGNORE_INDEX` on the prompt, the token itself on the answer; not shifted.
        shortened: Whether tokens were cut to fit `cutoff_len`.
        answer_cut: Whether tokens of an answer were among them.
        target: Of a task whose head gives one value per row: index of the class, or the number; NaN where the row has
            none. None of other tasks.
    """

    input_ids: list[int]
    labels: list[int]
    shortened: bool
    answer_cut: bool = False
    target: float | None = None


class Tokens(NamedTuple):
    """Hold the tokens of one row and where what is learnt begins and ends: the compact form of `EncodedRow`.

    Attributes:
        ids: All tokens.
        spans: Begin and end of every stretch that is learnt, one after the other.
        shortened: Whether tokens were cut.
        answer_cut: Whether tokens of an answer were among them.
    """

    ids: list[int]
    spans: tuple[int, ...]
    shortened: bool = False
    answer_cut: bool = False

    def row(self) -> EncodedRow:
        """Write the labels out."""
        labels = [IGNORE_INDEX] * len(self.ids)
        for begin, end in zip(self.spans[::2], self.spans[1::2], strict=True):
            labels[begin:end] = self.ids[begin:end]
        return EncodedRow(self.ids, labels, self.shortened, self.answer_cut)


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


def tokenise(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokenise texts as they are, without tokens around them."""
    if not texts:
        return []
    if not tokenizer.is_fast:
        return tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    # Asked once, transformers puts its padding and truncation on the backend back to none; then the backend alone,
    # without the characters of each token, is quicker than transformers around it.
    tokenizer(texts[0], add_special_tokens=False, verbose=False)
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Find the tokens, such as a beginning of sequence, that the tokenizer itself puts before a text."""
    (plain,) = tokenise(["a"], tokenizer)
    whole = tokenizer("a")["input_ids"]
    starts = range(len(whole) - len(plain) + 1)
    return whole[: next((start for start in starts if whole[start : start + len(plain)] == plain), 0)]


def kinds_of_tokens(parts: Sequence[Part], ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Tell for every token of a text which part it belongs to: the one in which it ends.

    So a token that holds the frame's last blank and the user's first word belongs to the user, and one that holds the
    user's last letter and the frame behind it belongs to the frame.
    """
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
    # Tokenised apart, a part may differ by a token or two where it touches the next: the longest one takes these.
    counts = [len(tokens) for tokens in tokenise([part.text for part in parts], tokenizer)]
    longest = counts.index(max(counts))
    counts[longest] = max(0, counts[longest] + len(ids) - sum(counts))
    kinds = [part.kind for part, count in zip(parts, counts, strict=True) for _ in range(count)]
    return (kinds + [parts[-1].kind] * len(ids))[: len(ids)]


class Segment(NamedTuple):
    """Hold the tokens of a stretch that is asked or answered, while a row is cut.

    Attributes:
        ids: Its tokens.
        kinds: Kind of every token.
        learn: Whether it is learnt.
    """

    ids: list[int]
    kinds: list[str]
    learn: bool


def cut(segments: Sequence[Segment], cutoff_len: int, where: str) -> Tokens:
    """Cut a row that is too long: the prompt first, in the order of `CUT_ORDER`; answers only where they alone are."""
    room = cutoff_len - 1
    answers = [sum(kind == "answer" for kind in segment.kinds) for segment in segments]
    kept = shares(answers, room)
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
    return Tokens(ids, merged(spans), shortened=True, answer_cut=sum(kept) < sum(answers))


def shares(sizes: Sequence[int], room: int) -> list[int]:
    """Fit sizes into a room by lowering the largest ones to the same level."""
    if sum(sizes) <= room:
        return list(sizes)
    level = next(level for level in range(max(sizes), -1, -1) if sum(min(size, level) for size in sizes) <= room)
    found = [min(size, level) for size in sizes]
    left = room - sum(found)
    for i in reversed(range(len(sizes))):  # what is over goes to the last answers, which the others lead to
        if left and sizes[i] > level:
            found[i] += 1
            left -= 1
    return found


def merged(spans: Sequence[int]) -> tuple[int, ...]:
    """Join spans that touch."""
    joined: list[int] = []
    for begin, end in zip(spans[::2], spans[1::2], strict=True):
        if joined and joined[-1] == begin:
            joined[-1] = end
        else:
            joined += [begin, end]
    return tuple(joined)
