"""Streams: rows read and tokenised during training, shuffled block by block so that any position can be resumed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from mtl_opt.data.read.files import stop_at_first
from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source, iterate
from mtl_opt.data.read.usage import Usage, usage_sentences
from mtl_opt.data.registry import Entry
from mtl_opt.data.store.loading import SplitRules, TaskRows, drawn_rows
from mtl_opt.data.store.opener import Opener, encoded
from mtl_opt.data.store.tables import TokenTable, TokenView, View
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.tokens import EncodedRow, Tokens
from mtl_opt.errors import InputError


class StreamRows:
    """Index a stream of unknown length like an endless sequence: once it ends it starts again, in a new order.

    Row `n` lies in block `n // buffer_size`, which is read, tokenised and shuffled when one of its rows is requested.
    What follows row `n` therefore depends on `n` alone, and only one block is in memory.

    Args:
        source: The source; all its rows belong to one task.
        encoder: Tokenises rows.
        buffer_size: Rows of one block.
        seed: Seed of the shuffling.
        held_out: Number of rows at the beginning of the stream to leave out.
        skip_bad_rows: Leave bad rows out; otherwise the first one raises when it is met.
    """

    def __init__(
        self, source: Source, encoder: Encoder, buffer_size: int, seed: int, held_out: int, skip_bad_rows: bool
    ) -> None:
        self.source = replace(source, streaming=True)
        self.encoder = encoder
        self.buffer_size = buffer_size
        self.seed = seed
        self.held_out = held_out
        self.skip_bad_rows = skip_bad_rows
        self.length: int | None = None  # known once the end was reached
        self.bad: list[InputError] = []
        self.block: list[Tokens] = []
        self.block_number = (-1, -1)  # epoch and number of the block in memory
        self.rows: Iterator[Row] = iter(())
        self.next_block = -1  # the block that `rows` yields next

    def __getitem__(self, number: int) -> EncodedRow:
        epoch, at = (0, number) if self.length is None else divmod(number, self.length)
        if self.block_number != (epoch, at // self.buffer_size):
            self.block = self.read(epoch, at // self.buffer_size)
            self.block_number = (epoch, at // self.buffer_size)
        if at % self.buffer_size >= len(self.block):
            if self.length is None:
                self.length = self.count(at // self.buffer_size)
            return self[number]
        return self.block[at % self.buffer_size].row()

    def count(self, block: int) -> int:
        """Count the rows of the stream, whose end was reached in a block.

        Args:
            block: Number of that block, which may lie past the end.

        Returns:
            Number of rows in one pass.

        Raises:
            InputError: If there are none.
        """
        length = block * self.buffer_size + len(self.block)
        if not self.block:
            self.restart()
            length = sum(1 for _ in self.rows)
            self.next_block = -1
        if length < 1:
            raise InputError(f"Data set `{self.source.path}` has no row to train on.")
        return length

    def read(self, epoch: int, block: int) -> list[Tokens]:
        """Read and shuffle one block; empty past the end.

        Args:
            epoch: Number of completed passes through the stream.
            block: Number of the block.

        Returns:
            The tokens of its rows.
        """
        if self.next_block != block:  # a resumed run, or a new pass: skip to the block
            self.restart()
            for _ in islice(self.rows, block * self.buffer_size):
                pass
        rows = islice(self.rows, self.buffer_size)
        report = self.bad.append if self.skip_bad_rows else stop_at_first
        found = [tokens for _, chunk in encoded(rows, self.encoder, report) for tokens in chunk]
        self.next_block = block + 1
        random.Random(f"{self.seed}/{epoch}/{self.source.task}/{block}").shuffle(found)
        return found

    def restart(self) -> None:
        """Start the stream from its first row that is not held out."""
        report = self.bad.append if self.skip_bad_rows else stop_at_first
        rows = rows_of_one_task(iterate(self.source, report), self.source)
        for _ in islice(rows, self.held_out):
            pass
        self.rows = self.encoder.in_blocks(rows)

    @property
    def lengths(self) -> np.ndarray:  # [1]
        """`cutoff_len` alone, as an upper bound: the rows are not known yet."""
        return np.array([self.encoder.cutoff_len])

    @property
    def largest_id(self) -> int:
        """Largest token id of the first block."""
        self[0]
        return max(max(tokens.ids) for tokens in self.block)


def rows_of_one_task(rows: Iterator[Row], source: Source) -> Iterator[Row]:
    """Yield the first `num_rows` rows, raising on one of another task: a stream is drawn from under one name."""
    for row in islice(rows, source.num_rows):
        if row.task not in {None, source.task}:
            raise InputError(f"{row.place}: the row says task `{row.task}`; a stream holds one task, `{source.task}`.")
        yield row


def load_streams(
    entries: Sequence[Entry], opener: Opener, rules: SplitRules, held_out: Sequence[Source], buffer_size: int, seed: int
) -> TaskRows:
    """Open training sources as streams, and read evaluation rows at once.

    Args:
        entries: Sources, one entry per task.
        opener: Opens the sources of evaluation rows, and adapts its encoder to each task.
        rules: How many rows to hold out at the beginning of a stream without evaluation rows of its own, and how many
            to measure at most.
        held_out: Sources of evaluation rows that are shared by all tasks.
        buffer_size: Rows of a stream that are shuffled together.
        seed: Seed of the shuffling.

    Returns:
        The rows of every task; training rows as tokens only.

    Raises:
        InputError: If a source may hold several tasks, or `val_size` is a share.
    """
    val_size, most = rules.val_size, rules.most_held_out
    if 0 < val_size < 1:
        raise InputError(f"`val_size` must be a number of rows, or 0, with `streaming`, got {val_size}.")
    sources = [entry.train for entry in entries]
    tasks = [source.task for source in sources]
    if None in tasks or len(set(tasks)) < len(tasks):
        raise InputError("`streaming` needs one source per task: `tasks`, or `dataset` with different tasks.")
    train, texts, tokens, notes, warnings = {}, {}, {}, list[str](), list[str]()
    for entry in entries:
        source, task = entry.train, str(entry.train.task)
        encoder = opener.encoder_of(source.settings, task)
        out = 0 if entry.eval is not None or held_out else int(val_size)
        train[task] = StreamRows(source, encoder, buffer_size, seed, out, opener.skip_bad_rows)
        usage = Usage()
        stream = rows_of_one_task(iterate(replace(source, streaming=True), stop_at_first, usage), source)
        first_rows = list(islice(stream, max(out, 1)))  # the first row tells how a stream is read
        rows = list(encoder.in_blocks(first_rows[:out][:most]))
        said = usage_sentences(usage.facts(), source.path, f"Task {task}")
        first = f"Task {task}: the first {source.num_rows} rows of the stream are taken (`max_samples`, `num_samples`)."
        notes, warnings = notes + said[0] + [first] * (source.num_rows is not None), warnings + said[1]
        indices = np.arange(len(rows))
        texts[task] = View[Row]([(rows, indices)])
        tokens[task] = TokenView([(TokenTable.from_chunks([encoder.encode_chunk(rows)]), indices)])
        table = next((opener.open(other) for other in (entry.eval, *held_out) if other and other.task == task), None)
        if table is not None:
            every = np.flatnonzero(drawn_rows(len(table.rows), most))
            texts[task], tokens[task] = View([(table.rows, every)]), TokenView([(table.tokens, every)])
    settings = {str(source.task): source.settings for source in sources}
    labels = {task: np.zeros(0, dtype=np.int32) for task in train}
    nothing: dict[str, View[Row]] = {task: View([]) for task in train}
    return TaskRows(nothing, train, texts, tokens, settings, labels, notes=notes, warnings=warnings)
