"""Loads all sources, groups their rows by task, and holds out rows of tasks that have none to evaluate on."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np

from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source, TaskSettings
from mtl_opt.data.read.usage import usage_sentences
from mtl_opt.data.registry import Entry
from mtl_opt.data.store.duplicates import GROUP, Overlap, clusters, overlaps, to_drop
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.store.tables import Numbers, SourceTable, TokenView, View
from mtl_opt.errors import InputError

Parts: TypeAlias = list[tuple[SourceTable, Numbers]]
"""Pairs of a table and the indices of its selected rows."""


@dataclass(frozen=True)
class SplitRules:
    """Say which rows are held out and which are left out.

    Attributes:
        val_size: What to hold out where a task has no evaluation rows: a share below 1, or a number of rows from 1.
        by_group: Keep rows that ask the same, or have the same group, on one side of that split.
        deduplicate: "exact" or "near": leave out training rows that repeat a held-out or an earlier training row.
        most_held_out: Largest number of held-out rows of a task; None for all.
    """

    val_size: float = 0.0
    by_group: bool = False
    deduplicate: str | None = None
    most_held_out: int | None = None


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
        overlap: What held-out rows share with training rows; empty for streams.
        columns: Formats of the training rows of every task, and columns of which nothing was read; empty for streams.
        notes: Sentences on what was read, drawn and held out.
        warnings: Sentences on what is probably not meant.
    """

    train: dict[str, View[Row]]
    train_tokens: Mapping[str, Any]
    eval: dict[str, View[Row]]
    eval_tokens: dict[str, TokenView]
    settings: dict[str, TaskSettings]
    labels: dict[str, Numbers]
    bad: list[str] = field(default_factory=list)
    overlap: dict[str, Overlap] = field(default_factory=dict)
    columns: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load_rows(
    entries: Sequence[Entry],
    opener: Opener,
    rules: SplitRules,
    held_out: Sequence[Source] = (),
    complete: bool = False,
) -> TaskRows:
    """Open all sources and group their rows by task.

    Args:
        entries: Sources of training rows, and of evaluation rows where an entry has its own.
        opener: Opens each source.
        rules: What to hold out of the training rows, and what to leave out.
        held_out: Sources of evaluation rows that are shared by all tasks.
        complete: Require rows of every task in `held_out`.

    Returns:
        The rows of every task, tasks in the order of the entries and, within one, of their first row.

    Raises:
        InputError: If a source or row is bad, or a task has no row to train or (with `complete`) to evaluate on.
    """
    val_size = rules.val_size
    if not (val_size >= 1 and float(val_size).is_integer()) and not 0 <= val_size < 1:
        raise InputError(f"`val_size` must be a share in [0, 1) or a whole number of rows, got {val_size}.")
    tables = [(opener.open(entry.train), None if entry.eval is None else opener.open(entry.eval)) for entry in entries]
    others = [opener.open(source) for source in held_out]
    settings = settings_of(entries, [table for table, _ in tables])
    train, out = _divided(tables, others, list(settings), rules)
    groups = [] if not rules.by_group else _said_of_groups(tables, split=not others and rules.val_size > 0)
    missing = [f"`{task}`" for task, parts in out.items() if not any(len(i) for _, i in parts)]
    if complete and held_out and missing:
        raise InputError(f"Evaluation file `{held_out[0].path}` has no rows of task {', '.join(missing)}.")
    notes = _limit_held_out(out, rules.most_held_out)
    before = overlaps(*({task: _marks(parts) for task, parts in side.items()} for side in (train, out)))
    overlap = _deduplicated(train, out, before, rules.deduplicate)
    opened = [*(t for pair in tables for t in pair if t is not None), *others]
    sources = [*(s for entry in entries for s in (entry.train, entry.eval) if s is not None), *held_out]
    read, warnings = _said_of_sources(zip(sources, opened, strict=True))
    warnings += _unseen_labels(train, out, opener.encoder.heads)
    return TaskRows(
        {task: _row_view(parts) for task, parts in train.items()},
        {task: _token_view(parts) for task, parts in train.items()},
        {task: _row_view(parts) for task, parts in out.items()},
        {task: _token_view(parts) for task, parts in out.items()},
        settings,
        {task: _label_codes(parts) for task, parts in train.items()},
        [sentence for table in opened for sentence in table.bad],
        overlap,
        _columns([table for table, _ in tables]),
        [*read, *notes],
        [*warnings, *groups],
    )


def _unseen_labels(train: dict[str, Parts], out: dict[str, Parts], heads: Collection[str]) -> list[str]:
    """Name the classes of held-out rows that no training row has, for tasks that generate the name of a class."""
    found = []
    for task in (name for name in train if name not in heads):
        known, wanted = (
            {t.labels[c] for t, i in side[task] for c in np.unique(t.label_codes[i]) if c >= 0 and _has_classes(t)}
            for side in (train, out)
        )
        new = [f"`{label}`" for label in sorted(wanted - known)]
        if known and new:
            found.append(f"Task {task}: no training row has the label{'s' * (len(new) > 1)} {', '.join(new)}.")
    return found


def _has_classes(table: SourceTable) -> bool:
    """Tell whether the labels of a table are classes, not letters of choices."""
    return "classification" in table.usage["formats"]


def _columns(tables: Sequence[SourceTable]) -> dict[str, dict[str, list[str]]]:
    """Collect formats and columns that are not read for every task."""
    found: dict[str, dict[str, list[str]]] = {}
    for table in tables:
        for task in table.tasks:
            own = found.setdefault(task, {"formats": [], "not_read": []})
            own["formats"] = list(dict.fromkeys([*own["formats"], *table.usage["formats"]]))
            own["not_read"] = list(dict.fromkeys([*own["not_read"], *table.usage["unread"]]))
    return found


def _said_of_sources(opened: Iterable[tuple[Source, SourceTable]]) -> tuple[list[str], list[str]]:
    """Say how each source is read, as notes, and where a label is probably ignored, as warnings."""
    notes, warnings = list[str](), list[str]()
    for source, table in opened:
        names = table.tasks
        task = f"Task {names[0]}" if len(names) == 1 else f"Tasks {', '.join(names[:5])}{', ...' * (len(names) > 5)}"
        own, also = usage_sentences(table.usage, source.path, task)
        notes += own
        warnings += also
    return list(dict.fromkeys(notes)), list(dict.fromkeys(warnings))


def _divided(
    tables: Sequence[tuple[SourceTable, SourceTable | None]],
    others: Sequence[SourceTable],
    tasks: Sequence[str],
    rules: SplitRules,
) -> tuple[dict[str, Parts], dict[str, Parts]]:
    """Group the rows of all tables into training and held-out rows of every task."""
    train: dict[str, Parts] = {task: [] for task in tasks}
    out: dict[str, Parts] = {task: [] for task in tasks}
    for table, own in tables:
        for code, task in enumerate(table.tasks):
            indices = np.flatnonzero(table.codes == code)
            if own is None and not others:
                groups = clusters(table.marks[indices]) if rules.by_group else None
                indices, held = hold_out(task, indices, rules.val_size, groups)
                out[task].append((table, held))
            train[task].append((table, indices))
        if own is not None:
            _add_held_out(out, own)
    for table in others:
        _add_held_out(out, table)
    return train, out


def _said_of_groups(tables: Sequence[tuple[SourceTable, SourceTable | None]], split: bool) -> list[str]:
    """Say where a split by group has nothing to divide, or no groups but rows that ask the same."""
    divided = [table for table, own in tables if own is None and split]
    if not divided:
        return ["`val_split_by: group` changes nothing: no held-out rows are taken from training rows."]
    bare = [f"`{name}`" for table in divided if not table.marks[:, GROUP].any() for name in table.tasks]
    return (
        [f"No row of task {', '.join(bare)} has a `group`: only rows that ask the same stay together."] if bare else []
    )


def _limit_held_out(out: dict[str, Parts], most: int | None) -> list[str]:
    """Draw at most so many held-out rows of every task, the same ones in every run, and return a note for each."""
    notes = []
    for task, parts in out.items():
        number = sum(len(indices) for _, indices in parts)
        if most is None or number <= most:
            continue
        chosen = drawn_rows(number, most)
        ends = np.cumsum([len(indices) for _, indices in parts])[:-1]
        out[task] = [(t, i[own]) for (t, i), own in zip(parts, np.split(chosen, ends), strict=True)]
        notes.append(
            f"Task {task}: `max_eval_samples` measures {most} of its {number} held-out rows, drawn at random, the same "
            "in every run; the others are not trained on."
        )
    return notes


def _deduplicated(
    train: dict[str, Parts], out: dict[str, Parts], before: dict[str, Overlap], how: str | None
) -> dict[str, Overlap]:
    """Leave out training rows that repeat another, and return the counts of what is left."""
    if how is None:
        return before
    dropped = {}
    for task, parts in train.items():
        marks = _marks(parts), _marks(out[task])
        gone = to_drop(_row_view(parts), _row_view(out[task]), marks, near=how == "near")
        if gone.all():
            raise InputError(
                f"Task `{task}`: `deduplicate: {how}` leaves nothing to train on: all of its {len(gone)} training rows "
                "repeat held-out rows."
            )
        ends = np.cumsum([len(indices) for _, indices in parts])[:-1]
        train[task] = [(t, i[~own]) for (t, i), own in zip(parts, np.split(gone, ends), strict=True)]
        dropped[task] = int(gone.sum())
    after = overlaps(*({task: _marks(parts) for task, parts in side.items()} for side in (train, out)))
    return {task: replace(found, dropped=dropped[task]) for task, found in after.items()}


def _marks(parts: Parts) -> Numbers:  # [rows, 3]
    """Collect the marks of selected rows."""
    return np.concatenate([np.zeros((0, 3), np.uint64), *(table.marks[indices] for table, indices in parts)])


def _add_held_out(out: dict[str, Parts], table: SourceTable) -> None:
    """Append the rows of a source to the evaluation rows of their tasks."""
    for code, task in enumerate(table.tasks):
        indices = np.flatnonzero(table.codes == code)
        if task not in out:
            first = table.rows[int(indices[0])]
            raise InputError(f"{first.place}: unknown task `{task}`. Tasks with training rows: {', '.join(out)}.")
        out[task].append((table, indices))


def _row_view(parts: Parts) -> View[Row]:
    """Build a view of rows as text."""
    return View([(table.rows, indices) for table, indices in parts])


def _token_view(parts: Parts) -> TokenView:
    """Build a view of the tokens of rows."""
    return TokenView([(table.tokens, indices) for table, indices in parts])


def _label_codes(parts: Parts) -> Numbers:  # [rows]
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


def hold_out(
    task: str, indices: Numbers, val_size: float, groups: Numbers | None = None
) -> tuple[Numbers, Numbers]:  # [rows], [rows], each
    """Split rows into training and evaluation rows, independently of the run's seed, so that runs share one test set.

    Args:
        task: Name of the task, for the error.
        indices: The rows. `[rows]`
        val_size: A share below 1 (rounded, at least one row), a number of rows from 1, or 0 for none.
        groups: Number of the group of every row, of which none is divided; with them, the share is met as nearly as
            whole groups allow. `[rows]`

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
    chosen = drawn_rows(num_rows, num_out) if groups is None else _drawn_groups(task, groups, num_out)
    return indices[~chosen], indices[chosen]


def drawn_rows(num_rows: int, num_out: int | None) -> Numbers:  # [rows]
    """Mark so many rows, the same ones in every run; all of them by default."""
    order = list(range(num_rows))
    random.Random(0).shuffle(order)
    chosen = np.zeros(num_rows, dtype=bool)
    chosen[order[:num_out]] = True
    return chosen


def _drawn_groups(task: str, groups: Numbers, num_out: int) -> Numbers:  # [rows] -> [rows]
    """Draw whole groups that together have at most so many rows, or else the smallest group."""
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        raise InputError(
            f"Task `{task}`: its {len(groups)} rows are all of one group, so that `val_split_by: group` has nothing to "
            "hold out; give an `eval_file`."
        )
    order = list(range(len(sizes)))
    random.Random(0).shuffle(order)
    taken, left = list[int](), num_out
    for group in order:
        if sizes[group] <= left:
            taken.append(group)
            left -= int(sizes[group])
    return np.isin(groups, taken or [int(sizes.argmin())])
