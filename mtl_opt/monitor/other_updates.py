"""Updates of other combiners against the one taken: the angle between them, and the predicted change of each loss.

Everything is computed in the Gramian: with `d = wᵀJ`, `|d|² = wᵀGw` and `⟨g_i, d⟩ = (Gw)_i`.
"""

from math import pi

import torch
from torch import Tensor


def angles(
    gramian: Tensor,  # [tasks, tasks]
    others: Tensor,  # [methods, tasks]
    taken: Tensor,  # [tasks]
) -> Tensor:  # [methods]
    """Measure the angles between weighted sums of the same rows.

    Examples:
        >>> angles(torch.eye(2), torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([1.0, 1.0]))
        tensor([ 0.0000, 45.0000], dtype=torch.float64)
    """
    exact = gramian.double()
    unit, reference = _unit(others.double(), exact), _unit(taken.double()[None], exact)
    # Kahan's form: exact for equal vectors and accurate for small angles, where an arc cosine has lost all digits.
    half = torch.atan2(_length(unit - reference, exact), _length(unit + reference, exact))
    return half * (360 / pi)


def angles_to_vector(
    gramian: Tensor,  # [tasks, tasks]
    others: Tensor,  # [methods, tasks]
    products: Tensor,  # [tasks]
    norm: float,
) -> Tensor:  # [methods]
    """Measure the angles to an update that is no weighted sum of the rows."""
    unit = _unit(others.double(), gramian.double())
    cosine = unit @ products.double() / (norm if norm > 0 else torch.nan)
    return cosine.clamp(-1, 1).acos() * (180 / pi)


def fitted_weights(
    gramian: Tensor,  # [tasks, tasks]
    products: Tensor,  # [tasks]
) -> Tensor:  # [tasks]
    """Compute the weights of the sum of rows that is nearest to an update that is no such sum."""
    exact = gramian.double()
    tolerance = 4 * len(exact) * torch.finfo(gramian.dtype).eps
    return torch.linalg.pinv(exact, rtol=tolerance, hermitian=True) @ products.double()


def predicted_changes(
    gramian: Tensor,  # [tasks, tasks]
    weights: Tensor,  # [methods, tasks]
    learning_rate: float,
    max_norm: float = 0.0,
) -> Tensor:  # [methods, tasks]
    r"""Predict to first order how every task's loss changes in a step of plain gradient descent: $-\eta\, s\, (Gw)_i$.

    The step is $-\eta\, s\, d$ with the learning rate of the run, $d = w^\top J$, and $s = \min(1, max\_norm / |d|)$
    where gradients are clipped. An optimizer with state (AdamW) rescales every coordinate by what it remembers, so its
    step differs; the signs, and how methods compare, are what these numbers are for.

    Examples:
        >>> predicted_changes(torch.diag(torch.tensor([4.0, 1.0])), torch.tensor([[1.0, 1.0]]), 0.1)
        tensor([[-0.4000, -0.1000]], dtype=torch.float64)
    """
    exact, weight = gramian.double(), weights.double()
    change = -learning_rate * (weight @ exact)
    if max_norm > 0:
        change = change * (max_norm / _length(weight, exact)).clamp(max=1)[:, None]
    return change


def _length(weights: Tensor, gramian: Tensor) -> Tensor:  # [methods, tasks], [tasks, tasks] -> [methods]
    """Compute the norms of weighted sums of the rows."""
    return ((weights @ gramian) * weights).sum(-1).clamp(min=0).sqrt()


def _unit(weights: Tensor, gramian: Tensor) -> Tensor:  # [methods, tasks], [tasks, tasks] -> [methods, tasks]
    """Scale weights so that their sum of rows has length 1; NaN where it has none."""
    length = _length(weights, gramian)
    return weights / torch.where(length > 0, length, torch.nan)[:, None]
