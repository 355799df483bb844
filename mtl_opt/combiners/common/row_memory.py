"""State with one row per task over all parameters, for methods that remember gradients."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class RowMemory(nn.Module):
    """Remember one row per task: width, precision and device are those of the first Jacobian.

    It starts without columns, because `bind` knows the tasks but not the parameters, and takes the shape of a
    checkpoint before that is copied into it.

    Args:
        num_tasks: Number of bound tasks.
    """

    value: Tensor  # [tasks, params]

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(num_tasks, 0))
        self.register_load_state_dict_pre_hook(match_saved_width)

    def like(self, rows: Tensor) -> Tensor:  # [present, params] -> [tasks, params]
        """Return the state of all tasks, to be changed in place; zeros at first, as wide as the rows ever after."""
        if self.value.shape[1] == 0:
            self.value = rows.new_zeros(len(self.value), rows.shape[1])
        if self.value.shape[1] != rows.shape[1]:
            raise ValueError(
                f"`jacobian` must have {self.value.shape[1]} columns as in earlier steps, got {rows.shape[1]}."
            )
        if self.value.device != rows.device or self.value.dtype != rows.dtype:  # first step after a checkpoint
            self.value = self.value.to(rows)
        return self.value


def match_saved_width(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Resize the buffer `value` to the width a checkpoint holds, before the checkpoint is copied into it."""
    saved = state.get(f"{prefix}value")
    if saved is not None and len(saved) == len(module.get_buffer("value")):
        module.register_buffer("value", torch.zeros_like(saved))


def squared_norms(
    rows: Tensor,  # [tasks, params]
) -> Tensor:  # [tasks, tasks]
    """Compute a diagonal matrix of squared norms: what `enter` needs to check rows without a Gramian."""
    return torch.linalg.vector_norm(rows, dim=1).square().diag()


def no_weights(method: str, why: str) -> ValueError:
    """Build the error of a method whose update is no weighted sum of the rows."""
    return ValueError(
        f"`{method}` has no weights for a Gramian: {why}. Call the combiner itself with the Jacobian [tasks, params]."
    )
