"""Targets of heads: answers as class indices or numbers, and token rows that carry them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from math import isfinite, nan
from typing import Any

import numpy as np
from typing_extensions import override

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.read.row_formats.plain import MISSING
from mtl_opt.data.read.rows import Row, words_of
from mtl_opt.data.store.tables import Numbers, TokenView, View
from mtl_opt.data.text.tokens import EncodedRow
from mtl_opt.errors import InputError, UnknownNameError


def label_names(rows: Iterable[Row], words: bool) -> list[str]:
    """Collect the label names of a task.

    Args:
        rows: Rows of one task.
        words: Whether each word has a label, or each row one.

    Returns:
        The distinct names without missing ones: whole numbers by value, then texts in alphabetical order.
    """
    found = {label for row in rows for label in _label_texts(row, words)} - {MISSING, ""}
    return sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def _label_texts(row: Row, words: bool) -> list[str]:
    """Return the label texts of a row."""
    return words_of(row.output) if words else [row.output.strip()]


def class_of(label: str, names: Sequence[str], task: str, row: Row) -> int | None:
    """Return the class index of a label given by name or index; None where it is missing."""
    if label in {"", MISSING}:
        return None
    if label in names:
        return names.index(label)
    if label.lstrip("-").isdecimal() and not any(name.isdecimal() for name in names):
        if not 0 <= int(label) < len(names):
            raise InputError(
                f"{row.place}: label {label} of task `{task}` is out of range; it has {len(names)} labels, 0 to "
                f"{len(names) - 1}: {', '.join(names)}."
            )
        return int(label)
    raise UnknownNameError(f"label of task `{task}` ({row.place}):", label, names)


def number_of(text: str, task: str, row: Row) -> float:
    """Parse a regression target; NaN where it is missing."""
    if not text.strip():
        return nan
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise InputError(f"{row.place}: task `{task}` is a regression and needs a finite number, got `{text}`.")
    return value


class TargetView(TokenView):
    """Present the tokens of selected rows together with the targets of a head.

    Args:
        parts: Pairs of a table and the indices of its selected rows, in order. `[selected]`
        targets: Class or number of each row, NaN where it is missing. `[rows]`
        words: Token positions and classes of the labelled words of each row; None for a head with one value per row.
        missed: Labels of each row that no answer can meet: words without a token, labels without a class.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Any, Numbers]],
        targets: Numbers,
        words: list[tuple[Numbers, Numbers]] | None,
        missed: list[list[str]],
    ) -> None:
        super().__init__(parts)
        self.targets = targets
        self.words = words
        self.missed = missed

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._with_target(super().__getitem__(index), index)

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))

    def _with_target(self, row: EncodedRow, index: int) -> EncodedRow:
        """Attach the target of a row to its tokens."""
        if self.words is None:
            return replace(row, labels=[IGNORE_INDEX] * len(row.input_ids), target=float(self.targets[index]))
        labels = np.full(len(row.input_ids), IGNORE_INDEX)
        places, classes = self.words[index]
        labels[places] = classes
        return replace(row, labels=labels.tolist())

    @override
    def pick(self, positions: Numbers) -> "TargetView":  # [picked]
        words = None if self.words is None else [self.words[i] for i in positions.tolist()]
        missed = [self.missed[i] for i in positions.tolist()]
        return TargetView(TokenView(self.parts).pick(positions).parts, self.targets[positions], words, missed)

    @property
    def num_labelled(self) -> int:
        """Number of rows with a target, or with a labelled word."""
        return int((~np.isnan(self.targets)).sum())

    @property
    def num_answerable(self) -> int:
        """Number of labels that an answer can meet."""
        return self.num_labelled if self.words is None else sum(len(classes) for _, classes in self.words)


def with_targets(
    task: str,
    rows: View[Row],
    tokens: TokenView,
    names: Sequence[str] | None,
    *,
    words: bool,
    skip_bad_rows: bool,
    unseen: Collection[str] = (),
) -> tuple[View[Row], TargetView, list[str]]:
    """Attach the targets of a head to the tokens of a task.

    Args:
        task: Name of the task, for errors.
        rows: Its rows, as text.
        tokens: The same rows, tokenised.
        names: Names of its classes; None for regression.
        words: Whether each word has a label, or each row one.
        skip_bad_rows: Leave out rows whose answer is no target; otherwise the first one raises.
        unseen: Labels that have no class, and are no error either: no answer meets them.

    Returns:
        The kept rows, their tokens with targets, and the error sentences of those left out.

    Raises:
        InputError: If an answer is neither a label of the task nor, for regression, a finite number.
    """
    kept = np.ones(len(rows), dtype=bool)
    targets, tagged, missed, bad = [], list[tuple[Numbers, Numbers]](), list[list[str]](), []
    places = _word_places(tokens) if words else None
    for index, row in enumerate(rows):
        try:
            if places is not None:
                assert names is not None
                pairs, lost = _word_classes(task, row, names, places[index], unseen)
                tagged.append(pairs)
                targets.append(0.0 if len(pairs[0]) else nan)
            else:
                lost = [label for label in _label_texts(row, words) if label in unseen]
                targets.append(nan if lost else _target(task, row, names))
        except InputError as error:
            if not skip_bad_rows:
                raise
            bad.append(str(error))
            kept[index] = False
        else:
            missed.append(lost)
    found = np.array(targets, dtype=np.float64)
    chosen = np.flatnonzero(kept)
    return rows.pick(chosen), TargetView(tokens.pick(chosen).parts, found, tagged if words else None, missed), bad


def _target(task: str, row: Row, names: Sequence[str] | None) -> float:
    """Parse the class or number of a row; NaN where it is missing."""
    if names is None:
        return number_of(row.output, task, row)
    found = class_of(row.output.strip(), names, task, row)
    return nan if found is None else float(found)


def _word_classes(
    task: str, row: Row, names: Sequence[str], places: Numbers, unseen: Collection[str]
) -> tuple[tuple[Numbers, Numbers], list[str]]:  # [words, 2]
    """Return token position and class of every labelled word that has both, and the labels of the others."""
    found, missed = list[tuple[int, int]](), list[str]()
    for (at, end), tag in zip(places.tolist(), words_of(row.output), strict=False):
        number = None if tag in unseen else class_of(tag, names, task, row)
        if tag in unseen or (number is not None and end <= at):
            missed.append(tag if number is None else names[number])
        elif number is not None:
            found.append((at, number))
    return (np.array([at for at, _ in found], np.int32), np.array([n for _, n in found], np.int32)), missed


def unseen_labels(rows: Iterable[Row], names: Sequence[str], words: bool) -> list[str]:
    """Collect the labels of held-out rows that are no class, by name or by index.

    Args:
        rows: The held-out rows of a task.
        names: Names of its classes.
        words: Whether each word has a label, or each row one.

    Returns:
        The labels without a class.
    """
    indexed = not any(name.isdecimal() for name in names)
    others = [label for label in label_names(rows, words) if label not in names]
    return [label for label in others if not (indexed and label.lstrip("-").isdecimal())]


def _word_places(tokens: TokenView) -> list[Numbers]:
    """Return begin and end of the first token of every word, per row `[words, 2]`."""
    found = []
    for table, indices in tokens.parts:
        for index in indices.tolist():
            first, last = table.span_offsets[index : index + 2].tolist()
            found.append(np.asarray(table.spans[first:last]).reshape(-1, 2))
    return found
