"""Columnar storage of the rows and tokens of one source, in memory or memory-mapped, and views of it per task."""

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
"""Bits of `TokenTable.flags`."""


@dataclass(frozen=True)
class TokenTable:
    """Store the tokens of many rows back to back.

    Attributes:
        ids: Tokens of all rows, uint16 where the vocabulary fits. `[tokens]`
        offsets: Where each row begins in `ids`. `[rows + 1]`
        spans: Begin and end, relative to the row, of every learnt span. `[2 * spans]`
        span_offsets: Where each row begins in `spans`. `[rows + 1]`
        flags: Bits `SHORTENED` and `ANSWER_CUT` of every row. `[rows]`
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

    @classmethod
    def from_chunks(cls, chunks: Iterable[Sequence[Tokens]]) -> Self:
        """Collect the tokens of rows, chunk by chunk, into columns."""
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
        # np.frombuffer refuses an empty buffer.
        return cls(
            np.concatenate(ids) if ids else np.zeros(0, np.uint16),
            np.cumsum([0, *lengths], dtype=np.int64),
            np.frombuffer(spans, dtype=np.int32) if spans else np.zeros(0, np.int32),
            np.cumsum([0, *span_counts], dtype=np.int64),
            np.frombuffer(flags, dtype=np.uint8) if flags else np.zeros(0, np.uint8),
        )


class StoredRows(Sequence[Row]):
    """Parse rows lazily from a file of JSON lines.

    Args:
        lines: The file, as bytes. `[bytes]`
        offsets: Where each row's line begins. `[rows + 1]`
        files: Names of the source files, to which the stored rows refer by number.
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
    """Convert a row to JSON values; new file names are added to `files`."""
    file = files.setdefault(row.file, len(files))
    rest: list[Any] = [row.system, row.tools, [list(turn) for turn in row.history], row.asks, row.answers, row.learn]
    rest += [list(row.choices), row.label, row.group, row.difficulty, row.ends, row.reasoning, list(row.results)]
    plain = [
        "",
        "",
        [],
        "user",
        "assistant",
        True,
        [],
        None,
        None,
        None,
        True,
        "",
        [],
    ]  # most rows: nothing but a question and an answer
    return [row.instruction, row.input, row.output, row.task, file, row.line, *([] if rest == plain else rest)]


def row_from(values: list[Any], files: Sequence[str]) -> Row:
    """Rebuild a row from the values that `row_values` made."""
    instruction, text, output, task, file, line, *rest = values
    if not rest:
        return Row(instruction, text, output, task, files[file], line)
    system, tools, history, asks, answers, learn, choices, label, group, difficulty, ends, reasoning, results = rest
    turns = tuple(Turn(role, text, flag, why, tuple(several)) for role, text, flag, why, several in history)
    return Row(
        instruction, text, output, task, files[file], line, system, tools, turns, asks, answers, learn, tuple(choices),
        label, group, difficulty, ends, reasoning, tuple(results),
    )  # fmt: skip


@dataclass(frozen=True)
class SourceTable:
    """Hold the rows and tokens of one source.

    Attributes:
        rows: Its rows as text.
        tokens: The same rows, tokenised; None while only the rows are known.
        tasks: Names of the tasks, in the order of their first row.
        codes: Index into `tasks` of every row. `[rows]`
        labels: The distinct labels.
        label_codes: Index into `labels` of every row; -1 where it has none. `[rows]`
        marks: Hashes of every row by which duplicates are found; see `marks_of`. `[rows, 3]`
        usage: What of the source was read, as `Usage.facts` gives it.
        bad: Error sentences of the rows that were left out.
    """

    rows: Sequence[Row]
    tokens: TokenTable | None
    tasks: list[str]
    codes: Numbers
    labels: list[str]
    label_codes: Numbers
    marks: Numbers
    usage: dict[str, Any]
    bad: list[str]


class View(Sequence[T], Generic[T]):
    """Present selected rows of one or more tables as one sequence, without copying them.

    Args:
        parts: Pairs of a table and the indices of its selected rows, in order. `[selected]`
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
        """Select some of the rows of the view.

        Args:
            positions: Ascending positions within the view, from 0. `[picked]`

        Returns:
            A view of the selected rows.
        """
        ends = [0, *self.ends]
        local = [positions[(positions >= low) & (positions < high)] - low for low, high in pairwise(ends)]
        return type(self)([(table, own[at]) for (table, own), at in zip(self.parts, local, strict=True)])

    def column(self, of: Callable[[Any], Numbers]) -> Numbers:  # [rows]
        """Collect one number per row of the view.

        Args:
            of: Returns such a column of a whole table.

        Returns:
            The numbers of the selected rows. `[rows]`
        """
        found = [np.asarray(of(table))[indices] for table, indices in self.parts]
        return np.concatenate(found) if found else np.zeros(0, np.int64)


class TokenView(View[EncodedRow]):
    """Present the tokens of selected rows of one or more `TokenTable`s as one sequence of `EncodedRow`s."""

    @property
    def lengths(self) -> Numbers:  # [rows]
        """Number of tokens of every row."""
        return self.column(lambda table: table.lengths)

    @property
    def num_shortened(self) -> int:
        """Number of rows that were truncated."""
        return int((self.column(lambda table: table.flags) & SHORTENED > 0).sum())

    @property
    def num_answers_cut(self) -> int:
        """Number of rows in which an answer was truncated."""
        return int((self.column(lambda table: table.flags) & ANSWER_CUT > 0).sum())

    @property
    def largest_id(self) -> int:
        """Largest token id in the tables, selected or not."""
        return max((int(table.ids.max()) for table, _ in self.parts if len(table.ids)), default=0)


def write_rows(rows: Iterable[Row], path: Path, files: dict[str, int]) -> Numbers:  # [rows + 1]
    """Append rows to a file that `StoredRows` reads, and return the offsets of their lines."""
    offsets, at = array("q", [0]), 0
    with path.open("ab") as file:
        for row in rows:
            line = json.dumps(row_values(row, files), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            file.write(line)
            at += len(line)
            offsets.append(at)
    return np.frombuffer(offsets, dtype=np.int64)
