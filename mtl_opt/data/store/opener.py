"""Opens a source as a table: from the cache, or by reading and tokenising it."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtl_opt.data.read.files import Report, stop_at_first
from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source, TaskSettings, iterate
from mtl_opt.data.read.usage import Usage
from mtl_opt.data.store.cache import LINES, load_table, save_table, table_key
from mtl_opt.data.store.duplicates import marks_of
from mtl_opt.data.store.tables import Numbers, SourceTable, StoredRows, TokenTable, write_rows
from mtl_opt.data.text.encoding import CHUNK, Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.data.text.tokens import Tokens
from mtl_opt.errors import InputError

SMALL = 2000
"""Sources with fewer rows are not cached by default: tokenising them takes no longer than a lookup."""


@dataclass(frozen=True)
class Opener:
    """Open sources as tables of rows and tokens.

    Attributes:
        encoder: Tokenises rows; a source's own template, instruction and task take precedence over its own.
        skip_bad_rows: Leave bad rows out and list them in the table; otherwise the first one raises.
        cache: Folder of the cache; None disables it.
        rebuild: Overwrite cached tables instead of reading them.
        keep_small: Cache sources of fewer than `SMALL` rows too.
    """

    encoder: Encoder
    skip_bad_rows: bool = False
    cache: Path | None = None
    rebuild: bool = False
    keep_small: bool = False

    def encoder_of(self, settings: TaskSettings, task: str | None) -> Encoder:
        """Adapt the encoder to a task.

        Args:
            settings: The task's settings; `template` replaces the run's, `instruction` follows the run's prefix.
            task: Name of the task; None where rows name their task themselves.

        Returns:
            The encoder of the task's rows.
        """
        template = (
            get_template(settings.template).thinking_as(self.encoder.template.thinking)
            if settings.template
            else self.encoder.template
        )
        prefix = "\n".join(part for part in (self.encoder.prefix.rstrip("\n"), settings.instruction) if part)
        return replace(self.encoder, template=template, prefix=prefix, task=task)

    def open(self, source: Source) -> SourceTable:
        """Memory-map the cached table of a source, or read and tokenise the source.

        Args:
            source: The source.

        Returns:
            Its rows and tokens.
        """
        encoder = self.encoder_of(source.settings, source.task)
        folder = None
        if self.cache is not None:
            folder = self.cache / table_key(source, encoder, self.skip_bad_rows)
            found = None if self.rebuild else load_table(folder)
            if found is not None:
                return found
        return build_table(source, encoder, self.skip_bad_rows, folder, 0 if self.keep_small else SMALL)


def build_table(source: Source, encoder: Encoder, skip_bad_rows: bool, folder: Path | None, small: int) -> SourceTable:
    """Read and tokenise a source, and cache the table in `folder` unless it has fewer than `small` rows."""
    errors: list[InputError] = []
    report = errors.append if skip_bad_rows else stop_at_first
    columns, usage = CodeColumns(source.task), Usage()
    files: dict[str, int] = {}
    kept: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / LINES
        ends: list[Numbers] = [np.zeros(1, np.int64)]

        def chunks() -> Iterator[list[Tokens]]:
            every = encoder.in_blocks(_sample(source, iterate(source, report, usage), usage))
            for rows, tokens in encoded(every, encoder, report):
                columns.add(rows)
                if folder is None:
                    kept.extend(rows)
                else:  # rows go to disk as they come, since a source that is cached may not fit into memory
                    ends.append(ends[-1][-1] + write_rows(rows, path, files)[1:])
                yield tokens

        tokens = TokenTable.from_chunks(chunks())
        if not len(tokens):
            raise InputError(f"`{source.path}` has no good row: {errors[0] if errors else 'it is empty'}")
        facts = {**usage.facts(), "blocks": len(tokens) if encoder.blocks else None}
        found = SourceTable(kept, tokens, *columns.columns(), facts, [str(error) for error in errors])
        if folder is None:
            return found
        offsets = np.concatenate(ends)
        if len(tokens) >= small:
            save_table(found, path, offsets, files, folder)
            restored = load_table(folder)
            if restored is not None:
                return restored
        lines = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        return replace(found, rows=StoredRows(lines, offsets, list(files)))


class CodeColumns:
    """Number the tasks and labels of rows in the order in which they first occur, and hash the rows.

    Args:
        task: Task of rows that name none themselves.
    """

    def __init__(self, task: str | None) -> None:
        self.task = task
        self.tasks: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.codes: list[Numbers] = []
        self.label_codes: list[Numbers] = []
        self.marks: list[Numbers] = [np.zeros((0, 3), np.uint64)]

    def add(self, rows: Sequence[Row]) -> None:
        """Append the codes of further rows."""
        names = [row.task or str(self.task) for row in rows]
        codes = [self.tasks.setdefault(name, len(self.tasks)) for name in names]
        self.codes.append(np.array(codes, dtype=np.int32))
        labels = [-1 if row.label is None else self.labels.setdefault(row.label, len(self.labels)) for row in rows]
        self.label_codes.append(np.array(labels, dtype=np.int32))
        self.marks.append(marks_of(rows))

    def columns(self) -> tuple[list[str], Numbers, list[str], Numbers, Numbers]:
        """Return task names, task codes, label names, label codes (-1 for none) and marks."""
        codes, labels = (np.concatenate([np.zeros(0, np.int32), *part]) for part in (self.codes, self.label_codes))
        return list(self.tasks), codes, list(self.labels), labels, np.concatenate(self.marks)


def encoded(rows: Iterator[Row], encoder: Encoder, report: Report) -> Iterator[tuple[list[Row], list[Tokens]]]:
    """Tokenise rows in chunks, reporting and dropping each row that cannot be tokenised.

    Args:
        rows: The rows, consumed lazily.
        encoder: Tokenises them.
        report: Called with the error of every bad row.

    Yields:
        The good rows of the next chunk, and their tokens.
    """
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield encode_chunk(chunk, encoder, report)
            chunk = []
    if chunk:
        yield encode_chunk(chunk, encoder, report)


def encode_chunk(rows: list[Row], encoder: Encoder, report: Report) -> tuple[list[Row], list[Tokens]]:
    """Tokenise a chunk at once or, where a row of it is bad, row by row."""
    try:
        return rows, encoder.encode_chunk(rows)
    except InputError:
        good: list[Row] = []
        tokens: list[Tokens] = []
        for row in rows:
            try:
                tokens += encoder.encode_chunk([row])
            except InputError as error:
                report(error)
            else:
                good.append(row)
        return good, tokens


def _sample(source: Source, rows: Iterator[Row], usage: Usage) -> Iterator[Row]:
    """Draw `num_rows` of the rows, the same in every run, and yield them in their order."""
    if source.num_rows is None:
        return rows
    every = list(rows)
    if source.num_rows < len(every):
        usage.drawn = (source.num_rows, len(every))
    chosen = random.Random(0).sample(range(len(every)), min(source.num_rows, len(every)))
    return iter([every[i] for i in sorted(chosen)])
