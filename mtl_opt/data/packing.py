"""Packing: rows of all tasks laid end to end in few sequences, instead of one padded sequence per row."""

from collections.abc import Sequence

import torch

from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.data.batches import pad_right
from mtl_opt.data.text.tokens import EncodedRow

WORTHWHILE = 0.9
"""A wider pack must save at least a tenth of the tokens, since the cost of attention is quadratic in its width."""

Owned = tuple[int, EncodedRow]
"""Index of a task, and one of its rows."""


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Pack lengths by first-fit decreasing, into at most 11/9 of the optimal number of bins plus 6/9.

    Examples:
        >>> first_fit([3, 8, 2, 5, 1], width=8)
        [[1], [3, 0], [2, 4]]
    """
    if max(lengths, default=0) > width:
        raise ValueError(f"`width` must be at least the longest length, {max(lengths)}, got {width}.")
    bins: list[list[int]] = []
    room: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b, left in enumerate(room) if left >= lengths[position]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(width)
        bins[place].append(position)
        room[place] -= lengths[position]
    return bins


def best_packing(lengths: Sequence[int], widest: int) -> list[list[int]]:
    """Pack into sequences as wide as the longest row, or two or four times wider where that saves tokens."""
    longest = max(lengths)
    best = first_fit(lengths, longest)
    for width in sorted({min(times * longest, widest) for times in (2, 4)}):
        if width > longest:
            packs = first_fit(lengths, width)
            best = packs if _area(packs, lengths) < WORTHWHILE * _area(best, lengths) else best
    return best


def _area(packs: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Count the tokens of packs, all padded to the longest one."""
    return len(packs) * max(sum(lengths[i] for i in pack) for pack in packs)


def collate_packed(rows: Sequence[Sequence[EncodedRow]], pad_token_id: int, widest: int = 0) -> TaskBatch:
    """Pack the rows of all tasks into few sequences, the rows of one task next to each other in each.

    The first token of a row is not learnt, since it would be predicted from the row before it. Padding at the end of a
    pack counts as a row of the pack's last task without labels, so that its gradient is zero.

    Args:
        rows: The rows of each task; empty for a task that is absent.
        pad_token_id: Fills `input_ids`.
        widest: Largest width of a pack, in tokens; the length of the longest row is always allowed.

    Returns:
        The batch, with task ids and positions `[batch, seq]` per token.

    Raises:
        ValueError: If no task has a row.
    """
    flat: list[Owned] = [(task, row) for task, own in enumerate(rows) for row in own]
    if not flat:
        raise ValueError(f"A batch needs at least one row, got none for {len(rows)} tasks.")
    packs = best_packing([len(row.input_ids) for _, row in flat], widest)
    # `flat` is sorted by task, so sorting positions sorts tasks; packs that begin with the same task stand together.
    ordered = sorted(sorted(pack) for pack in packs)
    return _tensors([[flat[i] for i in pack] for pack in ordered], pad_token_id)


def _tensors(packs: Sequence[Sequence[Owned]], pad_token_id: int) -> TaskBatch:
    """Pad packs to one width and convert them to tensors."""
    width = max(sum(len(row.input_ids) for _, row in pack) for pack in packs)
    columns: dict[str, list[list[int]]] = {name: [] for name in ("ids", "mask", "labels", "tasks", "positions")}
    for pack in packs:
        ids = [token for _, row in pack for token in row.input_ids]
        rest = width - len(ids)
        columns["ids"].append(pad_right(ids, width, pad_token_id))
        columns["mask"].append(pad_right([1] * len(ids), width, 0))
        labels = [label for _, row in pack for label in (IGNORE_INDEX, *row.labels[1:])]
        columns["labels"].append(pad_right(labels, width, IGNORE_INDEX))
        tasks = [task for task, row in pack for _ in row.input_ids]
        columns["tasks"].append(pad_right(tasks, width, pack[-1][0]))
        columns["positions"].append([i for _, row in pack for i in range(len(row.input_ids))] + list(range(rest)))
    found = {name: torch.tensor(values) for name, values in columns.items()}
    return TaskBatch(found["ids"], found["mask"], found["labels"], found["tasks"], found["positions"])
