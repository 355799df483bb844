"""Rows and tokens of one source in columns, in memory or mapped from files, and views of them by task."""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mtl_opt.data.read.rows import Row, Turn
from mtl_opt.data.text.tokens import EncodedRow, Tokens

T = TypeVar("T")
Numbers = NDArray[Any]

SHORTENED, ANSWER_CUT = 1, 2
"""Bits of a row's flags."""


@dataclass(frozen=True)
class TokenTable:
    """Hold the tokens of many rows, one behind the other.

    Attributes:
        ids: Tokens of all rows.
        offsets: Where each row begins; one more than there are rows.
        spans: Begin and end, within its row, of every stretch that is learnt.
        span_offsets: Where the spans of each row begin; one more than there are rows.
        flags: `SHORTENED` and `ANSWER_CUT` of every row.
    """

    ids: Numbers
    offsets: Numbers
    spans: Numbers
    span_offsets: Numbers
    flags: Numbers

    def __len__(self) -> int:
        return len(self.flags)

    def __getitem__(self, index: int) -> EncodedRow:
        begin, end = self.offsets[index : index + 2].tolist()
        first, last = self.span_offsets[index : index + 2].tolist()
        flags = int(self.flags[index])
        tokens = Tokens(
            self.ids[begin:end].tolist(),
            tuple(self.spans[first:last].tolist()),
            bool(flags & SHORTENED),
            bool(flags & ANSWER_CUT),
        )
        return tokens.row()

    @property
    def lengths(self) -> Numbers:  # [rows]
        """Number of tokens of every row."""
        return np.diff(self.offsets)


def table_of(chunks: Iterable[Sequence[Tokens]]) -> TokenTable:
    """Put the tokens of rows into columns."""
    ids: list[Numbers] = []
    lengths, spans, span_counts, flags = array("q"), array("i"), array("q"), array("B")
    for chunk in chunks:
        flat = array("i")
        for tokens in chunk:
            flat.extend(tokens.ids)
            lengths.append(len(tokens.ids))
            spans.extend(tokens.spans)
            span_counts.append(len(tokens.spans))
            flags.append(tokens.shortened * SHORTENED + tokens.answer_cut * ANSWER_CUT)
        numbers = np.frombuffer(flat, dtype=np.int32)
        ids.append(numbers.astype(np.uint16) if not len(numbers) or numbers.max() < 2**16 else numbers)
    return TokenTable(
        np.concatenate(ids) if ids else np.zeros(0, np.uint16),
        np.cumsum([0, *lengths], dtype=np.int64),
        np.frombuffer(spans, dtype=np.int32) if spans else np.zeros(0, np.int32),
        np.cumsum([0, *span_counts], dtype=np.int64),
        np.frombuffer(flags, dtype=np.uint8) if flags else np.zeros(0, np.uint8),
    )


class StoredRows(Sequence[Row]):
    """Read rows from a mapped file when they are asked for.

    Args:
        lines: The file, as bytes.
        offsets: Where each row's line begins; one more than there are rows.
        files: Names of the files that rows come from.
    """

    def __init__(self, lines: Numbers, offsets: Numbers, files: Sequence[str]) -> None:
        self.lines = lines
        self.offsets = offsets
        self.files = files

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        begin, end = self.offsets[index : index + 2].tolist()
        return row_from(json.loads(self.lines[begin:end].tobytes()), self.files)


def row_values(row: Row, files: dict[str, int]) -> list[Any]:
    """Write a row as plain values; `files` numbers the names of files."""
    file = files.setdefault(row.file, len(files))
    rest: list[Any] = [row.system, row.tools, [list(turn) for turn in row.history], row.asks, row.answers, row.learn]
    rest += [list(row.choices), row.label]
    plain = ["", "", [], "user", "assistant", True, [], None]
    return [row.instruction, row.input, row.output, row.task, file, row.line, *([] if rest == plain else rest)]


def row_from(values: list[Any], files: Sequence[str]) -> Row:
    """Read a row from plain values."""
    instruction, text, output, task, file, line, *rest = values
    if not rest:
        return Row(instruction, text, output, task, files[file], line)
    system, tools, history, asks, answers, learn, choices, label = rest
    turns = tuple(Turn(*turn) for turn in history)
    return Row(
        instruction, text, output, task, files[file], line,
        system, tools, turns, asks, answers, learn, tuple(choices), label,
    )  # fmt: skip


@dataclass(frozen=True)
class SourceTable:
    """Hold what was read of one source.

    Attributes:
        rows: Its rows.
        tokens: Their tokens; None where none were asked for.
        tasks: Names of the tasks, in the order of their first row.
        codes: Index among `tasks` of every row.
        labels: The labels that occur.
        label_codes: Index among `labels` of every row; -1 where it has none.
        bad: What is wrong with the rows that were left out.
    """

    rows: Sequence[Row]
    tokens: TokenTable | None
    tasks: list[str]
    codes: Numbers  # [rows]
    labels: list[str]
    label_codes: Numbers  # [rows]
    bad: list[str]


class View(Sequence[T], Generic[T]):
    """See some of the rows of some tables as one sequence.

    Args:
        parts: Tables and the indices of the rows that are seen, in order.
    """

    def __init__(self, parts: Sequence[tuple[Any, Numbers]]) -> None:
        self.parts = [(table, indices) for table, indices in parts if len(indices)]
        self.ends = np.cumsum([len(indices) for _, indices in self.parts]).tolist()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        for (table, indices), end in zip(self.parts, self.ends, strict=True):
            if at < end:
                return table[int(indices[at - end + len(indices)])]
        raise IndexError(index)

    def __iter__(self) -> Iterator[T]:
        return (table[index] for table, indices in self.parts for index in indices.tolist())

    def pick(self, positions: Numbers) -> Self:  # [picked]
        """See some of the rows that are seen.

        Args:
            positions: Which, from 0, ascending. `[picked]`

        Returns:
            A view of these rows.
        """
        ends = [0, *self.ends]
        cut = [positions[(positions >= low) & (positions < high)] - low for low, high in pairwise(ends)]
        return type(self)([(table, own[at]) for (table, own), at in zip(self.parts, cut, strict=True)])

    def column(self, of: Callable[[Any], Numbers]) -> Numbers:  # [rows]
        """Collect one number per row.

        Args:
            of: Gives the numbers of all rows of a table.

        Returns:
            The numbers of the rows that are seen. `[rows]`
        """
        found = [np.asarray(of(table))[indices] for table, indices in self.parts]
        return np.concatenate(found) if found else np.zeros(0, np.int64)


class TokenView(View[EncodedRow]):
    """See the tokens of some rows of some tables as one sequence."""

    @property
    def lengths(self) -> Numbers:  # [rows]
        """Number of tokens of every row."""
        return self.column(lambda table: table.lengths)

    @property
    def num_shortened(self) -> int:
        """Number of rows that lost tokens."""
        return int((self.column(lambda table: table.flags) & SHORTENED > 0).sum())

    @property
    def num_answers_cut(self) -> int:
        """Number of rows of which an answer lost tokens."""
        return int((self.column(lambda table: table.flags) & ANSWER_CUT > 0).sum())

    @property
    def largest_id(self) -> int:
        """Largest token id of the tables that are seen."""
        return max((int(table.ids.max()) for table, _ in self.parts if len(table.ids)), default=0)


def write_rows(rows: Iterable[Row], path: Path, files: dict[str, int]) -> Numbers:
    """Write rows to a file that `StoredRows` reads."""
    offsets, at = array("q", [0]), 0
    with path.open("ab") as file:
        for row in rows:
            line = json.dumps(row_values(row, files), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            file.write(line)
            at += len(line)
            offsets.append(at)
    return np.frombuffer(offsets, dtype=np.int64)
