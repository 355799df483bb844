"""Pure functions on Jacobians and Gramians: everything that is measured of a conflict starts here."""

import torch
from torch import Tensor


def gramian(
    jacobian: Tensor,  # [tasks, params]
) -> Tensor:  # [tasks, tasks]
    """Compute `G = J Jᵀ`, the inner products of all task gradients.

    Args:
        jacobian: One gradient per row. `[tasks, params]`

    Returns:
        The Gramian. `[tasks, tasks]`

    Examples:
        >>> gramian(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        tensor([[25.,  4.],
                [ 4.,  1.]])
    """
    return jacobian @ jacobian.T


def norms(
    gramian: Tensor,  # [tasks, tasks]
) -> Tensor:  # [tasks]
    """Read the gradient norms off the diagonal.

    Args:
        gramian: Inner products of the task gradients. `[tasks, tasks]`

    Returns:
        The Euclidean norm of each task gradient. `[tasks]`
    """
    return gramian.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()


def cosines(
    gramian: Tensor,  # [tasks, tasks]
) -> Tensor:  # [tasks, tasks]
    """Normalise the Gramian to the cosine of every pair of task gradients.

    Args:
        gramian: Inner products of the task gradients. `[tasks, tasks]`

    Returns:
        The cosines in [-1, 1]; NaN where a gradient is zero and has no direction. `[tasks, tasks]`

    Examples:
        >>> cosines(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        tensor([[ 1.0000, -0.5000],
                [-0.5000,  1.0000]])
    """
    length = norms(gramian)
    unit = torch.where(length > 0, 1 / length, torch.nan)
    # One factor at a time: the product of two tiny norms would underflow.
    return (gramian * unit[:, None] * unit[None, :]).clamp(-1, 1)


def conflict_rate(
    gramian: Tensor,  # [tasks, tasks]
) -> Tensor:  # []
    """Compute the share of task pairs whose gradients point apart (negative inner product).

    Args:
        gramian: Inner products of the task gradients. `[tasks, tasks]`

    Returns:
        A share in [0, 1] of the pairs with two non-zero gradients; NaN where there is no such pair. `[]`

    Examples:
        >>> conflict_rate(torch.tensor([[1.0, -1.0, 0.5], [-1.0, 2.0, 0.1], [0.5, 0.1, 1.0]]))
        tensor(0.3333)
    """
    rows, columns = torch.triu_indices(len(gramian), len(gramian), offset=1, device=gramian.device)
    pairs = gramian[rows, columns]
    alive = gramian.diagonal() > 0
    counted = alive[rows] & alive[columns]
    return ((pairs < 0) & counted).sum() / counted.sum()
