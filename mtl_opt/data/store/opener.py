"""A source to a table: found in the cache, or read, tokenised and kept there."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtl_opt.data.read.files import Report, stop_at_first
from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source, TaskSettings, iterate
from mtl_opt.data.store import cache
from mtl_opt.data.store.tables import Numbers, SourceTable, StoredRows, table_of, write_rows
from mtl_opt.data.text.encoding import CHUNK, Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.data.text.tokens import Tokens
from mtl_opt.errors import InputError

SMALL = 2000
"""A source with fewer rows is not put into the default cache: tokenising it takes no longer than looking it up."""


@dataclass(frozen=True)
class Opener:
    """Say how a source is opened.

    Attributes:
        encoder: What makes tokens; its template, prefix and task give way to those of the source.
        skip_bad_rows: Whether bad rows are left out and listed; otherwise the first one is an error.
        cache: Folder of the cache; None for none.
        rebuild: Whether what is cached is made again.
        keep_small: Whether sources of few rows are cached too.
    """

    encoder: Encoder
    skip_bad_rows: bool = False
    cache: Path | None = None
    rebuild: bool = False
    keep_small: bool = False

    def encoder_of(self, settings: TaskSettings, task: str | None) -> Encoder:
        """Adapt the encoder to a task.

        Args:
            settings: What the user says of it.
            task: Its name; None where rows name their task themselves.

        Returns:
            The encoder with the task's template and instruction.
        """
        template = get_template(settings.template) if settings.template else self.encoder.template
        prefix = "\n".join(part for part in (self.encoder.prefix.rstrip("\n"), settings.instruction) if part)
        return replace(self.encoder, template=template, prefix=prefix, task=task)

    def open(self, source: Source) -> SourceTable:
        """Read and tokenise a source, or map what is cached.

        Args:
            source: The source.

        Returns:
            Its rows and tokens.
        """
        encoder = self.encoder_of(source.settings, source.task)
        folder = None
        if self.cache is not None:
            folder = self.cache / cache.key_of(source, encoder, self.skip_bad_rows)
            found = None if self.rebuild else cache.restore(folder)
            if found is not None:
                return found
        return build(source, encoder, self.skip_bad_rows, folder, SMALL if not self.keep_small else 0)


def build(source: Source, encoder: Encoder, skip_bad_rows: bool, folder: Path | None, small: int) -> SourceTable:
    """Read and tokenise a source."""
    errors: list[InputError] = []
    report = errors.append if skip_bad_rows else stop_at_first
    marks = Marks(source.task)
    files: dict[str, int] = {}
    kept: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / cache.LINES
        ends: list[Numbers] = [np.zeros(1, np.int64)]

        def chunks() -> Iterator[list[Tokens]]:
            for rows, tokens in encoded(_chosen(source, iterate(source, report)), encoder, report):
                marks.add(rows)
                if folder is None:
                    kept.extend(rows)
                else:
                    ends.append(ends[-1][-1] + write_rows(rows, path, files)[1:])
                yield tokens

        tokens = table_of(chunks())
        if not len(tokens):
            raise InputError(f"`{source.path}` has no good row: {errors[0] if errors else 'it is empty'}")
        found = SourceTable(kept, tokens, *marks.columns(), [str(error) for error in errors])
        if folder is None:
            return found
        offsets = np.concatenate(ends)
        if len(tokens) >= small:
            cache.save(found, path, offsets, files, folder)
            restored = cache.restore(folder)
            if restored is not None:
                return restored
        lines = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        return replace(found, rows=StoredRows(lines, offsets, list(files)))


class Marks:
    """Collect task and label of every row as numbers.

    Args:
        task: Task of rows that name none themselves.
    """

    def __init__(self, task: str | None) -> None:
        self.task = task
        self.tasks: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.codes: list[Numbers] = []
        self.label_codes: list[Numbers] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Take the next rows."""
        names = [row.task or str(self.task) for row in rows]
        codes = [self.tasks.setdefault(name, len(self.tasks)) for name in names]
        self.codes.append(np.array(codes, dtype=np.int32))
        labels = [-1 if row.label is None else self.labels.setdefault(row.label, len(self.labels)) for row in rows]
        self.label_codes.append(np.array(labels, dtype=np.int32))

    def columns(self) -> tuple[list[str], Numbers, list[str], Numbers]:
        """Give names and codes."""
        codes, labels = (np.concatenate([np.zeros(0, np.int32), *part]) for part in (self.codes, self.label_codes))
        return list(self.tasks), codes, list(self.labels), labels


def encoded(rows: Iterator[Row], encoder: Encoder, report: Report) -> Iterator[tuple[list[Row], list[Tokens]]]:
    """Tokenise rows in chunks; where one row of a chunk cannot be, it alone is reported and left out.

    Args:
        rows: The rows, read as they are needed.
        encoder: Turns rows into tokens.
        report: Called with the error of every row that cannot be tokenised.

    Yields:
        The rows of a chunk that were tokenised, and their tokens.
    """
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield encode_good(chunk, encoder, report)
            chunk = []
    if chunk:
        yield encode_good(chunk, encoder, report)


def encode_good(rows: list[Row], encoder: Encoder, report: Report) -> tuple[list[Row], list[Tokens]]:
    """Tokenise a chunk, and where that fails row by row."""
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


def _chosen(source: Source, rows: Iterator[Row]) -> Iterator[Row]:
    """Take `num_rows` of the rows, drawn the same way in every run, in their order."""
    if source.num_rows is None:
        return rows
    every = list(rows)
    chosen = random.Random(0).sample(range(len(every)), min(source.num_rows, len(every)))
    return iter([every[i] for i in sorted(chosen)])
