"""Input of combiners: checked, detached, and converted to the precision in which it is used."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def detached_rows(
    jacobian: Tensor,  # [tasks, params]
) -> Tensor:  # [tasks, params]
    """Detach a Jacobian from the autograd graph, in float32 at least."""
    if jacobian.dim() != 2:
        raise ValueError(
            f"`jacobian` must be [tasks, params] with one gradient per task, got shape {tuple(jacobian.shape)}: "
            "a gradient that was already summed over tasks cannot be taken apart again."
        )
    return _in_float(jacobian)


def detached_halves(
    jacobians: Tensor,  # [2, tasks, params]
) -> Tensor:  # [2, tasks, params]
    """Detach the Jacobians of two halves of a step from the autograd graph, in float32 at least."""
    if jacobians.dim() != 3 or len(jacobians) != 2:
        raise ValueError(
            "`jacobian` must be [2, tasks, params], the gradients of two independent halves of the rows, got shape "
            f"{tuple(jacobians.shape)}."
        )
    return _in_float(jacobians)


def _in_float(rows: Tensor) -> Tensor:
    """Detach rows, in float32 at least."""
    # Weights and averages may lie beyond the range of half precision.
    rows = rows.detach()
    return rows.float() if rows.dtype in {torch.float16, torch.bfloat16} else rows


def checked_gramian(
    gramian: Tensor,  # [tasks, tasks]
    names: Sequence[str],
    two_samples: bool = False,
) -> Tensor:  # [tasks, tasks]
    """Copy a Gramian to float64 on the CPU; raise where it cannot be one."""
    matrix = gramian.detach().to("cpu", torch.float64)
    # On a few numbers NumPy takes half of torch's time, and every method is called in every step.
    entries = matrix.numpy()
    diagonal = entries.diagonal()
    _refuse_non_finite(diagonal, names, "gradient")
    if not np.isfinite(entries).all():
        raise ValueError("`gramian` must be finite, got a non-finite inner product between finite gradients.")
    if two_samples:
        return matrix
    # Rounding of float32 inner products is far below this; a matrix that fails was never J Jᵀ.
    if np.abs(entries - entries.T).max() > 1e-4 * np.abs(diagonal).max() or diagonal.min() < 0:
        raise ValueError("`gramian` must be symmetric with a diagonal of squared norms.")
    return matrix


def checked_losses(
    losses: Tensor,  # [tasks]
    names: Sequence[str],
) -> Tensor:  # [tasks]
    """Copy losses to float64 on the CPU; raise for a wrong number of them or a non-finite one."""
    if losses.shape != (len(names),):
        raise ValueError(f"`losses` must be [{len(names)}], one per task, got shape {tuple(losses.shape)}.")
    vector = losses.detach().to("cpu", torch.float64)
    _refuse_non_finite(vector.numpy(), names, "loss")
    return vector


def _refuse_non_finite(values: np.ndarray, names: Sequence[str], what: str) -> None:
    """Raise for the first task whose value is NaN or infinite."""
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ValueError(f"The {what} of task `{names[first]}` is not finite ({values[first]}).")
