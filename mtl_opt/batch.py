"""A batch that knows the task of every row, and the one context that tells every module which task owns a row."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token that is not learnt: prompt and padding."""


@dataclass(frozen=True)
class TaskBatch:
    """Hold the rows of one micro-batch; the rows of one task are contiguous, or packed without padding between them.

    Attributes:
        input_ids: Token ids, padded on the right. `[batch, seq]`
        attention_mask: 1 for tokens, 0 for padding. `[batch, seq]`
        labels: Token ids to learn, `IGNORE_INDEX` elsewhere; not shifted. For a head that labels words, the class of
            each labelled word at its first token. `[batch, seq]`
        task_ids: Index of the task that owns each row `[batch]`, or each token of packed rows `[batch, seq]`.
        position_ids: Of packed rows: place of each token in its own row, 0 where a row begins. `[batch, seq]`
        targets: For heads that give one value per row: index of the class, or the number; NaN where a row has none.
            None where no task has such a head. `[batch]`, float32
    """

    input_ids: Tensor  # [batch, seq]
    attention_mask: Tensor  # [batch, seq]
    labels: Tensor  # [batch, seq]
    task_ids: Tensor  # [batch] or [batch, seq]
    position_ids: Tensor | None = None  # [batch, seq]
    targets: Tensor | None = None  # [batch]

    def to(self, device: torch.device | str) -> "TaskBatch":
        """Copy every tensor to `device`.

        Args:
            device: Where the tensors are wanted.

        Returns:
            The batch on that device.
        """
        moved: dict[str, Any] = {}
        for name, tensor in vars(self).items():
            moved[name] = None if tensor is None else tensor.to(device, non_blocking=True)
        return TaskBatch(**moved)


# One plain stack for the whole process, not a context variable: on a GPU, backward (and with it the recomputation
# of checkpointed layers) runs on threads of autograd, which see no context variable of the caller.
_OPEN: list[Tensor] = []


@contextmanager
def task_rows(ids: Tensor) -> Iterator[None]:  # [batch] or [batch, seq]
    """Say which task owns each row (or each token of packed rows) while the context is open.

    Keep it open from the forward to the end of the backward, so that recomputed layers see the same rows. A module
    that gathers or repeats rows opens an inner context with the gathered ids.

    Args:
        ids: Task index of each row `[batch]`, or of each token `[batch, seq]`.

    Yields:
        Nothing; `current_task_rows` returns `ids` inside.
    """
    _OPEN.append(ids)
    try:
        yield
    finally:
        _OPEN.pop()


def current_task_rows() -> Tensor | None:
    """Tell which task owns each row.

    Returns:
        The ids of the innermost open `task_rows` context, `[batch]` or `[batch, seq]`; None outside any.
    """
    return _OPEN[-1] if _OPEN else None
