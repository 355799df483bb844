"""Loads all sources, groups their rows by task, and holds out rows of tasks that have none to evaluate on."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source, TaskSettings
from mtl_opt.data.registry import Entry
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.store.tables import Numbers, SourceTable, TokenView, View
from mtl_opt.errors import InputError


@dataclass(frozen=True)
class TaskRows:
    """Hold the rows of every task; all mappings have the same tasks in the same order.

    Attributes:
        train: Training rows as text, at least one per task; empty for streams.
        train_tokens: The same rows, tokenised: a `TokenView`, or `StreamRows` under `streaming`.
        eval: Evaluation rows as text; empty where nothing is held out.
        eval_tokens: The same rows, tokenised.
        settings: Settings of each task.
        labels: Label of each training row as a number; -1 for none. `[rows]`
        bad: Error sentences of the rows that were left out.
    """

    train: dict[str, View[Row]]
    train_tokens: Mapping[str, Any]
    eval: dict[str, View[Row]]
    eval_tokens: dict[str, TokenView]
    settings: dict[str, TaskSettings]
    labels: dict[str, Numbers]
    bad: list[str] = field(default_factory=list)


def load_rows(
    entries: Sequence[Entry], opener: Opener, val_size: float, held_out: Sequence[Source] = (), complete: bool = False
) -> TaskRows:
    """Open all sources and group their rows by task.

    Args:
        entries: Sources of training rows, and of evaluation rows where an entry has its own.
        opener: Opens each source.
        val_size: What to hold out where a task has no evaluation rows: a share below 1, or a number of rows from 1.
        held_out: Sources of evaluation rows that are shared by all tasks.
        complete: Require rows of every task in `held_out`.

    Returns:
        The rows of every task, tasks in the order of the entries and, within one, of their first row.

    Raises:
        InputError: If a source or row is bad, or a task has no row to train or (with `complete`) to evaluate on.
    """
    if not (val_size >= 1 and float(val_size).is_integer()) and not 0 <= val_size < 1:
        raise InputError(f"`val_size` must be a share in [0, 1) or a whole number of rows, got {val_size}.")
    tables = [(opener.open(entry.train), None if entry.eval is None else opener.open(entry.eval)) for entry in entries]
    settings = settings_of(entries, [table for table, _ in tables])
    train: dict[str, list[tuple[SourceTable, Numbers]]] = {task: [] for task in settings}
    out: dict[str, list[tuple[SourceTable, Numbers]]] = {task: [] for task in settings}
    for table, own in tables:
        for code, task in enumerate(table.tasks):
            indices = np.flatnonzero(table.codes == code)
            if own is None and not held_out:
                indices, held = hold_out(task, indices, val_size)
                out[task].append((table, held))
            train[task].append((table, indices))
        if own is not None:
            _add_held_out(out, own)
    others = [opener.open(source) for source in held_out]
    for table in others:
        _add_held_out(out, table)
    missing = [f"`{task}`" for task, parts in out.items() if not any(len(i) for _, i in parts)]
    if complete and held_out and missing:
        raise InputError(f"Evaluation file `{held_out[0].path}` has no rows of task {', '.join(missing)}.")
    opened = [*(t for pair in tables for t in pair if t is not None), *others]
    bad = [sentence for table in opened for sentence in table.bad]
    return TaskRows(
        {task: _row_view(parts) for task, parts in train.items()},
        {task: _token_view(parts) for task, parts in train.items()},
        {task: _row_view(parts) for task, parts in out.items()},
        {task: _token_view(parts) for task, parts in out.items()},
        settings,
        {task: _label_codes(parts) for task, parts in train.items()},
        bad,
    )


def _add_held_out(out: dict[str, list[tuple[SourceTable, Numbers]]], table: SourceTable) -> None:
    """Append the rows of a source to the evaluation rows of their tasks."""
    for code, task in enumerate(table.tasks):
        indices = np.flatnonzero(table.codes == code)
        if task not in out:
            first = table.rows[int(indices[0])]
            raise InputError(f"{first.place}: unknown task `{task}`. Tasks with training rows: {', '.join(out)}.")
        out[task].append((table, indices))


def _row_view(parts: Sequence[tuple[SourceTable, Numbers]]) -> View[Row]:
    """Build a view of rows as text."""
    return View([(table.rows, indices) for table, indices in parts])


def _token_view(parts: Sequence[tuple[SourceTable, Numbers]]) -> TokenView:
    """Build a view of the tokens of rows."""
    return TokenView([(table.tokens, indices) for table, indices in parts])


def _label_codes(parts: Sequence[tuple[SourceTable, Numbers]]) -> Numbers:  # [rows]
    """Number the labels of a task consistently across its tables; -1 for none."""
    names: dict[str, int] = {}
    found = []
    for table, indices in parts:
        numbers = [names.setdefault(label, len(names)) for label in table.labels]
        found.append(np.array([*numbers, -1], dtype=np.int32)[table.label_codes[indices]])
    return np.concatenate(found)


def settings_of(entries: Sequence[Entry], tables: Sequence[SourceTable]) -> dict[str, TaskSettings]:
    """Collect the settings of each task, which must agree where several entries hold rows of it."""
    found: dict[str, TaskSettings] = {}
    for entry, table in zip(entries, tables, strict=True):
        settings = entry.train.settings
        if settings.ratio is not None and len(table.tasks) > 1:
            names = ", ".join(table.tasks)
            raise InputError(f"`{entry.train.path}` holds several tasks ({names}); give their shares in `ratios`.")
        for task in table.tasks:
            known = found.setdefault(task, settings)
            for spec in fields(TaskSettings):
                first, second = getattr(known, spec.name), getattr(settings, spec.name)
                if first != second:
                    raise InputError(f"Task `{task}` has two values of `{spec.name}`: {first!r} and {second!r}.")
    return found


def hold_out(task: str, indices: Numbers, val_size: float) -> tuple[Numbers, Numbers]:  # [rows], [rows]
    """Split rows into training and evaluation rows, independently of the run's seed, so that runs share one test set.

    Args:
        task: Name of the task, for the error.
        indices: The rows. `[rows]`
        val_size: A share below 1 (rounded, at least one row), a number of rows from 1, or 0 for none.

    Returns:
        Training and evaluation rows, both in the order given.

    Raises:
        InputError: If no row would be left to train on.
    """
    if val_size == 0:
        return indices, indices[:0]
    num_rows = len(indices)
    num_out = int(val_size) if val_size >= 1 else max(1, round(val_size * num_rows))
    if num_out >= num_rows:
        raise InputError(
            f"Task `{task}`: Holding out {num_out} of {num_rows} row{'s' * (num_rows != 1)} (`val_size` {val_size}) "
            "leaves nothing to train on; give an `eval_file` or a smaller `val_size`."
        )
    order = list(range(num_rows))
    random.Random(0).shuffle(order)
    chosen = np.zeros(num_rows, dtype=bool)
    chosen[order[:num_out]] = True
    return indices[~chosen], indices[chosen]
