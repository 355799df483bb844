"""Blocks of long plain text: a document that `cutoff_len` would cut becomes several rows, with nothing lost."""

from collections.abc import Iterator
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row
from mtl_opt.data.text.tokens import tokenise
from mtl_opt.errors import InputError


def block_rows(row: Row, tokenizer: PreTrainedTokenizerBase, room: int) -> Iterator[Row]:
    """Divide a row of plain text into rows of at most `room` tokens, of which only the last one ends with eos."""
    if row.asks != "nobody":
        yield row
        return
    if not tokenizer.is_fast:
        raise InputError("`text_blocks` (`stage: pt`) needs a fast tokenizer, which says where its tokens begin.")
    text = row.output
    starts = [start for start, _ in offsets_of(text, tokenizer)]
    if len(starts) + 1 <= room:
        yield row
        return
    group = row.group or row.place
    first = 0  # token at which the block begins
    while first < len(starts):
        begin = starts[first] if first else 0
        last = next_block(text, starts, (first, begin), tokenizer, room)
        end = starts[last] if last < len(starts) else len(text)
        yield replace(row, output=text[begin:end], ends=last == len(starts), group=group)
        first = last


def next_block(text: str, starts: list[int], at: tuple[int, int], tokenizer: PreTrainedTokenizerBase, room: int) -> int:
    """Return the token at which the next block begins: the last one whose characters before it fit."""
    first, begin = at
    last = min(first + room, len(starts))
    while last > first + 1:
        end = starts[last] if last < len(starts) else len(text)
        # A text of its own may have other tokens than as a part of a longer one.
        (ids,) = tokenise([text[begin:end]], tokenizer)
        over = len(ids) + (last == len(starts)) - room
        if over <= 0 and end > begin:
            break
        last -= max(1, over)
    last = max(last, first + 1)
    while last < len(starts) and starts[last] <= begin:  # tokens of one character, such as its bytes, stay together
        last += 1
    return last


def offsets_of(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Return where the tokens of a text begin and end."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [(int(start), int(end)) for start, end in found["offset_mapping"]]
