"""Measures of conflict that need the Gramian alone, for any number of steps at once.

Every function takes Gramians `[..., tasks, tasks]`. An absent task has a row of zeros; whatever involves a task
without a gradient is NaN.
"""

import torch
from torch import Tensor


def magnitude_similarity(
    gramian: Tensor,  # [..., tasks, tasks]
) -> Tensor:  # [..., tasks, tasks]
    r"""Compare the lengths of every pair of gradients: $2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2)$.

    1 where both are equally long; near 0 the longer one drowns the other in a plain sum, whatever their angle.

    References:
        Yu, Kumar, Gupta, Levine, Hausman, Finn, `Gradient Surgery for Multi-Task Learning
        <https://arxiv.org/abs/2001.06782>`_, NeurIPS 2020, Definition 2.

    Examples:
        >>> magnitude_similarity(torch.tensor([[9.0, 0.0], [0.0, 1.0]]))
        tensor([[1.0000, 0.6000],
                [0.6000, 1.0000]], dtype=torch.float64)
    """
    length = _lengths(gramian)
    first, second = length[..., :, None], length[..., None, :]
    ratio = torch.minimum(first, second) / torch.maximum(first, second)  # in this form nothing overflows
    return 2 * ratio / (1 + ratio.square())


def curvature_bound(
    gramian: Tensor,  # [..., tasks, tasks]
) -> Tensor:  # [..., tasks, tasks]
    r"""Bound the curvature above which a plain sum overshoots: $(1 - \cos^2) |g_i - g_j|^2 / |g_i + g_j|^2$.

    The third part of the "tragic triad" (gradients conflict, lengths differ, curvature is high): two conflicting
    gradients are better projected than summed, for long enough steps, where the curvature along the sum is at least
    this share of the largest curvature there is. So a value of 1 or more says that no curvature makes a projection
    provably better, a value near 0 that nearly any does.

    References:
        Yu, Kumar, Gupta, Levine, Hausman, Finn, `Gradient Surgery for Multi-Task Learning
        <https://arxiv.org/abs/2001.06782>`_, NeurIPS 2020, Definition 4 and Theorem 2.

    Examples:
        >>> curvature_bound(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    length = _lengths(gramian)
    cosine = cosines_of(gramian)
    first, second = length[..., :, None], length[..., None, :]
    ratio = torch.minimum(first, second) / torch.maximum(first, second)
    both = 1 + ratio.square()
    apart, together = both - 2 * ratio * cosine, (both + 2 * ratio * cosine).clamp(min=0)
    bound = (1 - cosine.square()) * apart / together
    opposite = together <= _rounding(gramian)
    bound = torch.where(opposite & cosine.isfinite(), torch.inf, bound)
    diagonal = torch.eye(gramian.shape[-1], dtype=torch.bool, device=gramian.device)
    return torch.where(diagonal & cosine.isfinite(), 0.0, bound)


def condition_number(
    gramian: Tensor,  # [..., tasks, tasks]
) -> Tensor:  # [...]
    r"""Compute the condition number of the Jacobian, $\sigma_{max} / \sigma_{min}$: the root of the Gramian's own.

    1 where all gradients are orthogonal and equally long; large where one dominates or some are nearly dependent.
    It depends on the scale of the losses, as the update does.

    References:
        Senushkin, Patakin, Kuznetsov, Konushin, `Independent Component Alignment for Multi-Task Learning
        <https://arxiv.org/abs/2305.19000>`_, CVPR 2023, Section 3.

    Examples:
        >>> condition_number(torch.diag(torch.tensor([100.0, 4.0, 0.0])))
        tensor(5., dtype=torch.float64)
    """
    exact = torch.nan_to_num(gramian.double())
    size = exact.shape[-1]
    alive = (exact.diagonal(dim1=-2, dim2=-1) > 0).sum(-1)
    squares = torch.linalg.eigvalsh(exact)  # ascending; those of absent tasks are 0
    largest = squares[..., -1]
    # Zero rows add zeros at the lower end, and rounding can put a negative one below them: take the ones that count.
    ranked = squares.abs().sort(dim=-1, descending=True).values
    least = ranked.gather(-1, (alive - 1).clamp(min=0)[..., None]).squeeze(-1)
    value = torch.where(least > size * _rounding(gramian) * largest, (largest / least).sqrt(), torch.inf)
    return torch.where(alive > 0, value, torch.nan)


def conflict_rates(
    gramian: Tensor,  # [..., tasks, tasks]
) -> Tensor:  # [...]
    """Compute the share of pairs that pull apart (negative inner product)."""
    rows, columns = torch.triu_indices(gramian.shape[-1], gramian.shape[-1], offset=1, device=gramian.device)
    pairs = cosines_of(gramian)[..., rows, columns]
    return ((pairs < 0).sum(-1) / pairs.isfinite().sum(-1)).double()


def update_shares(
    gramian: Tensor,  # [..., tasks, tasks]
    weights: Tensor,  # [..., tasks]
) -> Tensor:  # [..., tasks]
    r"""Compute the part of the update that comes from each task: $w_i \langle g_i, d \rangle / |d|^2$.

    With $d = \sum_j w_j g_j$ the shares add up to 1. A negative one says that the task's weighted gradient points
    against the update.

    Examples:
        >>> update_shares(torch.tensor([[9.0, 0.0], [0.0, 1.0]]), torch.ones(2))
        tensor([0.9000, 0.1000], dtype=torch.float64)
    """
    exact, weight = gramian.double(), weights.double()
    parts = weight * (exact @ weight[..., None]).squeeze(-1)
    total = parts.sum(-1, keepdim=True)
    return torch.where(total > 0, parts / total, torch.nan)


def cosines_of(
    gramian: Tensor,  # [..., tasks, tasks]
) -> Tensor:  # [..., tasks, tasks]
    """Compute the cosines of any number of Gramians."""
    length = _lengths(gramian)
    return (gramian.double() / length[..., :, None] / length[..., None, :]).clamp(-1, 1)


def _lengths(gramian: Tensor) -> Tensor:  # [..., tasks, tasks] -> [..., tasks]
    """Read the norms, NaN where there is no gradient."""
    length = gramian.double().diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    return torch.where(length > 0, length, torch.nan)


def _rounding(gramian: Tensor) -> float:
    """Return the relative size below which a number is rounding error."""
    return 4 * torch.finfo(gramian.dtype).eps
