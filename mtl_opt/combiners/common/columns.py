"""Blocks of columns of a Jacobian, for methods that need the rows themselves."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

CACHED_ELEMENTS = 1 << 17
"""Elements of the Jacobian in a block on the CPU: it and its temporaries stay in the cache of one core."""
SHARED_ELEMENTS = 1 << 20
"""The same where threads share the blocks: with smaller ones they would wait for each other's Python."""
DEVICE_COLUMNS = 1 << 22
"""Columns of a block on an accelerator, where launching an operation is what costs."""

Work = Callable[[slice], Tensor]
"""Processes a block of columns; returns a number that is not finite where an entry is not. `[]`"""


def over_columns(
    rows: Tensor,  # [tasks, params]
    build: Callable[[], Work],
) -> Tensor:  # []
    """Process the columns of a Jacobian in blocks, on the CPU with as many threads as torch has.

    Every thread takes whole blocks. Left to torch, each of some thousand small operations would be shared out and
    waited for, which on a busy machine takes a hundred times as long.
    """
    width = block_width(rows)
    blocks = [slice(start, min(start + width, rows.shape[1])) for start in range(0, rows.shape[1], width)]
    num_threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    num_workers = min(num_threads, len(blocks)) if rows.device.type == "cpu" else 1

    def run(worker: int) -> Tensor:
        with torch.inference_mode(inference):  # the mode belongs to a thread
            work, total = build(), rows.new_zeros(())
            for block in blocks[worker::num_workers]:
                total += work(block)
        return total

    if num_workers <= 1:
        return run(0) if blocks else rows.new_zeros(())
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_workers) as pool:
            return torch.stack(list(pool.map(run, range(num_workers)))).sum()
    finally:
        torch.set_num_threads(num_threads)


def block_width(
    rows: Tensor,  # [tasks, params]
) -> int:
    """Choose how many columns a block has."""
    elements = CACHED_ELEMENTS if torch.get_num_threads() == 1 else SHARED_ELEMENTS
    wanted = max(1024, elements // len(rows)) if rows.device.type == "cpu" else DEVICE_COLUMNS
    return max(1, min(wanted, rows.shape[1]))


def refuse_non_finite_rows(
    rows: Tensor,  # [tasks, params]
    tasks: Sequence[str],
) -> None:
    """Raise for the first task whose gradient is not finite."""
    for name, row in zip(tasks, rows, strict=True):
        finite = torch.isfinite(row)
        if not bool(finite.all()):
            raise ValueError(f"The gradient of task `{name}` is not finite ({row[~finite][0].item()}).")
