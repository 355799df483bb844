"""Walking a Jacobian in blocks of columns, for methods that need the rows themselves."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CACHED_ELEMENTS = 1 << 17
"""Elements of the Jacobian in a block on the CPU: it and its temporaries stay in the cache of one core."""
DEVICE_COLUMNS = 1 << 22
"""Columns of a block elsewhere, where starting an operation is what costs."""


def column_blocks(
    rows: Tensor,  # [tasks, params]
) -> Iterator[slice]:
    """Cut the columns of a Jacobian into blocks.

    Args:
        rows: One gradient per row. `[tasks, params]`

    Yields:
        Consecutive blocks of columns.
    """
    width = block_width(rows)
    for start in range(0, rows.shape[1], width):
        yield slice(start, min(start + width, rows.shape[1]))


def block_width(
    rows: Tensor,  # [tasks, params]
) -> int:
    """Choose how many columns a block has.

    Args:
        rows: One gradient per row. `[tasks, params]`

    Returns:
        A number of columns, at most that of `rows` and at least 1.
    """
    if rows.device.type != "cpu":
        return max(1, min(DEVICE_COLUMNS, rows.shape[1]))
    wanted = max(1024, CACHED_ELEMENTS // len(rows)) * torch.get_num_threads()
    return max(1, min(wanted, rows.shape[1]))


def refuse_non_finite_rows(
    rows: Tensor,  # [tasks, params]
    tasks: Sequence[str],
) -> None:
    """Name the first task whose gradient is not finite; nothing happens where all are.

    Args:
        rows: One gradient per row. `[tasks, params]`
        tasks: Their names.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    for name, row in zip(tasks, rows, strict=True):
        finite = torch.isfinite(row)
        if not bool(finite.all()):
            raise ValueError(f"The gradient of task `{name}` is not finite ({row[~finite][0].item()}).")
