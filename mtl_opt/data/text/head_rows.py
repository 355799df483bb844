"""Rows that a head answers: only the question becomes tokens, with the tokenizer's own marks and no template."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row, words_of
from mtl_opt.data.text.tokens import Tokens
from mtl_opt.errors import InputError


@dataclass(frozen=True)
class HeadEncoder:
    """Tokenise the questions of rows that a head answers; every row comes with the prefix of its task.

    Attributes:
        tokenizer: The tokenizer; a fast one where words have labels.
        cutoff_len: Largest number of tokens of a row.
        allow_cutting: Whether longer rows are truncated; otherwise they raise.
    """

    tokenizer: PreTrainedTokenizerBase
    cutoff_len: int
    allow_cutting: bool

    def encode_rows(self, rows: Sequence[Row], prefixes: Sequence[str]) -> list[Tokens]:
        """Tokenise rows with one target each: one text, or two with the tokenizer's separator between them."""
        found: dict[int, Tokens] = {}
        pairs = [bool(self.tokenizer.sep_token and row.instruction and row.input) for row in rows]
        for paired in (False, True):
            places = [i for i, pair in enumerate(pairs) if pair == paired]
            texts = [question_texts(rows[i], prefixes[i], paired) for i in places]
            for i, text, ids in zip(places, texts, self._tokenise(texts), strict=True):
                self._check_length(rows[i], len(ids))
                found[i] = Tokens(ids, ()) if len(ids) <= self.cutoff_len else self._truncate(text)
        return [found[i] for i in range(len(rows))]

    def encode_words(self, rows: Sequence[Row], prefixes: Sequence[str]) -> list[Tokens]:
        """Tokenise rows with one label per word; the spans are the first token of each word."""
        if rows and not self.tokenizer.is_fast:
            raise InputError(
                "A head of type `token_classification` needs a fast tokenizer: a slow one hides where words are."
            )
        return [self._encode_words(row, prefix) for row, prefix in zip(rows, prefixes, strict=True)]

    def _tokenise(self, texts: Sequence[tuple[str, ...]], **arguments: Any) -> list[list[int]]:
        """Tokenise texts, or pairs of texts, with the tokenizer's own marks around them."""
        if not texts:
            return []
        columns = [list(column) for column in zip(*texts, strict=True)]
        return self.tokenizer(*columns, return_attention_mask=False, verbose=False, **arguments)["input_ids"]

    def _truncate(self, text: tuple[str, ...]) -> Tokens:
        """Tokenise a long row as its tokenizer truncates: the marks around the text stay."""
        (ids,) = self._tokenise([text], truncation=True, max_length=self.cutoff_len)
        return Tokens(ids, (), shortened=True)

    def _check_length(self, row: Row, length: int) -> None:
        """Raise if a row has no tokens, or too many and may not be truncated."""
        if not length:
            raise InputError(f"{row.place}: the tokenizer makes no token of the row.")
        if length > self.cutoff_len and not self.allow_cutting:
            raise InputError(
                f"{row.place}: the row has {length} tokens, `cutoff_len` is {self.cutoff_len} and `truncation` "
                "is error."
            )

    def _encode_words(self, row: Row, prefix: str) -> Tokens:
        """Tokenise one row of words."""
        words, tags = words_of(row.user_text), words_of(row.output)
        if tags and len(tags) != len(words):
            raise InputError(
                f"{row.place}: one label per word is needed, got {len(tags)} labels for {len(words)} words."
            )
        text = prefix + " ".join(words)
        encoding = self.tokenizer(text, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
        length = len(encoding["input_ids"])
        self._check_length(row, length)
        if length > self.cutoff_len:
            limits = {"truncation": True, "max_length": self.cutoff_len}
            encoding = self.tokenizer(text, return_offsets_mapping=True, verbose=False, **limits)
        spans = first_token_spans(words, len(prefix), encoding["offset_mapping"])
        return Tokens(encoding["input_ids"], tuple(spans), shortened=length > self.cutoff_len)


def question_texts(row: Row, prefix: str, paired: bool) -> tuple[str, ...]:
    """Write everything that is asked as one text, or as two."""
    before = [part for part in (row.system, *(turn.text for turn in row.history)) if part]
    if paired:
        return prefix + "\n".join([*before, row.instruction]), row.input
    # Plain text has nothing but `output`, which is the label here.
    return (prefix + "\n".join([*before, row.user_text]),)


def first_token_spans(words: Sequence[str], begin: int, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Find the span of the first token of each word, given the characters of each token; (0, 0) where it has none."""
    spans, at = list[int](), 0
    for word in words:
        end = begin + len(word)
        while at < len(offsets) and offsets[at][1] <= begin:
            at += 1
        has_token = at < len(offsets) and offsets[at][0] < end and offsets[at][1] > offsets[at][0]
        spans += [at, at + 1] if has_token else [0, 0]
        at += has_token  # a token that runs into the next word belongs to this one
        begin = end + 1
    return spans
