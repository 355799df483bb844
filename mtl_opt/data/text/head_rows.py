"""Rows of tasks that a head answers: what is asked alone becomes tokens; the answer is a label, a number or tags."""

from collections.abc import Sequence
from typing import Any

from mtl_opt.data.read.rows import Row
from mtl_opt.data.text.tokens import Tokens
from mtl_opt.errors import InputError


def encode_for_heads(encoder: Any, rows: Sequence[Row]) -> list[Tokens]:
    """Tokenise rows, some of which a head answers."""
    found: list[Tokens | None] = [None] * len(rows)
    kinds = [encoder.heads.get(row.task or encoder.task) for row in rows]
    answered = [i for i, kind in enumerate(kinds) if kind is None]
    for i in answered:
        if not rows[i].output.strip():
            raise InputError(f"{rows[i].place}: the answer is empty; only a task with a head may lack one in a row.")
    _fill(found, answered, encoder.encode_answered([rows[i] for i in answered]))
    for kind, encode in (("row", _whole_rows), ("words", _words)):
        own = [i for i, name in enumerate(kinds) if name == kind]
        _fill(found, own, encode(encoder, [rows[i] for i in own]))
    return [tokens for tokens in found if tokens is not None]


def _fill(found: list[Tokens | None], places: Sequence[int], tokens: Sequence[Tokens]) -> None:
    """Put tokens to their places."""
    for place, mine in zip(places, tokens, strict=True):
        found[place] = mine


def _whole_rows(encoder: Any, rows: Sequence[Row]) -> list[Tokens]:
    """Tokenise rows that have one value each: one text, or two with the tokenizer's separator between them."""
    found: list[Tokens | None] = [None] * len(rows)
    pairs = [bool(encoder.tokenizer.sep_token and row.instruction and row.input) for row in rows]
    for paired in (False, True):
        places = [i for i, pair in enumerate(pairs) if pair == paired]
        texts = [_texts(encoder, rows[i], paired) for i in places]
        ids = _tokenise(encoder, texts)
        for place, text, tokens in zip(places, texts, ids, strict=True):
            found[place] = _fitted(encoder, rows[place], text, tokens)
    return [tokens for tokens in found if tokens is not None]


def _texts(encoder: Any, row: Row, paired: bool) -> tuple[str, ...]:
    """Write what is asked as one text, or as two."""
    before = [part for part in (row.system, *(turn.text for turn in row.history)) if part]
    prefix = encoder.prefix_of(row)
    if paired:
        return prefix + "\n".join([*before, row.instruction]), row.input
    # plain text has all of it in `output`, which is no label then
    return (prefix + "\n".join([*before, row.user_text]),)


def _tokenise(encoder: Any, texts: Sequence[tuple[str, ...]], **arguments: Any) -> list[list[int]]:
    """Tokenise texts with the tokenizer's own tokens around them."""
    if not texts:
        return []
    columns = [list(column) for column in zip(*texts, strict=True)]
    return encoder.tokenizer(*columns, return_attention_mask=False, verbose=False, **arguments)["input_ids"]


def _fitted(encoder: Any, row: Row, text: tuple[str, ...], ids: list[int]) -> Tokens:
    """Cut a row that is too long as its tokenizer cuts: the tokens around the text stay."""
    _check_length(encoder, row, len(ids))
    if len(ids) <= encoder.cutoff_len:
        return Tokens(ids, ())
    (short,) = _tokenise(encoder, [text], truncation=True, max_length=encoder.cutoff_len)
    return Tokens(short, (), shortened=True)


def _check_length(encoder: Any, row: Row, length: int) -> None:
    """Refuse a row without tokens, or one that is too long and must not be cut."""
    if not length:
        raise InputError(f"{row.place}: the tokenizer makes no token of the row.")
    if length > encoder.cutoff_len and not encoder.allow_cutting:
        raise InputError(
            f"{row.place}: the row has {length} tokens, `cutoff_len` is {encoder.cutoff_len} and `truncation` is error."
        )


def _words(encoder: Any, rows: Sequence[Row]) -> list[Tokens]:
    """Tokenise rows that have one label per word, and find the first token of each word."""
    if rows and not encoder.tokenizer.is_fast:
        raise InputError(
            "A head of type `token_classification` needs a fast tokenizer: a slow one hides where words are."
        )
    return [_tagged(encoder, row) for row in rows]


def _tagged(encoder: Any, row: Row) -> Tokens:
    """Tokenise one row of words."""
    words, tags = row.user_text.split(), row.output.split()
    if tags and len(tags) != len(words):
        raise InputError(f"{row.place}: one label per word is needed, got {len(tags)} labels for {len(words)} words.")
    prefix = encoder.prefix_of(row)
    text = prefix + " ".join(words)
    encoding = encoder.tokenizer(text, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    length = len(encoding["input_ids"])
    _check_length(encoder, row, length)
    if length > encoder.cutoff_len:
        limits = {"truncation": True, "max_length": encoder.cutoff_len}
        encoding = encoder.tokenizer(text, return_offsets_mapping=True, verbose=False, **limits)
    spans, begin, at = [], len(prefix), 0
    offsets = encoding["offset_mapping"]
    for word in words:
        end = begin + len(word)
        while at < len(offsets) and offsets[at][1] <= begin:
            at += 1
        has = at < len(offsets) and offsets[at][0] < end and offsets[at][1] > offsets[at][0]
        spans += [at, at + 1] if has else [0, 0]
        at += has  # a token that runs into the next word belongs to this one
        begin = end + 1
    return Tokens(encoding["input_ids"], tuple(spans), shortened=length > encoder.cutoff_len)
