"""Distances between the tasks' low-rank updates `ΔW_t = B_t A_t`, by products of their small factors alone.

Every distance here is differentiated with the updates of the other tasks held fixed, so that each task is pulled with a
strength of its own; with equal strengths the gradient is that of the symmetric distance.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def inner_products(
    a: Tensor,  # [tasks, rank, in]
    b: Tensor,  # [tasks, out, rank]
) -> Tensor:  # [tasks, tasks]
    """Compute `<ΔW_i, ΔW_j>`, differentiable in `ΔW_i` alone: `Σ (A_i A_jᵀ) ⊙ (B_iᵀ B_j)`."""
    inputs = torch.einsum("iax,jbx->ijab", a, a.detach())
    outputs = torch.einsum("iya,jyb->ijab", b, b.detach())
    return (inputs * outputs).sum((-1, -2))


def pull_together(
    a: Tensor,  # [tasks, rank, in]
    b: Tensor,  # [tasks, out, rank]
    strengths: Tensor,  # [tasks]
) -> Tensor:  # []
    """Compute `Σ_t λ_t / (tasks - 1) Σ_{j≠t} ½ ‖ΔW_t - ΔW_j‖²`; cost `tasks² rank² (in + out)`."""
    products = inner_products(a, b)
    own = products.diagonal()
    squares = own.detach()
    # ½ ‖ΔW_t - ΔW_j‖² with the gradient `ΔW_t - ΔW_j`; what `own` brings twice is taken off as a constant.
    pairs = own[:, None] - products + (squares[None, :] - squares[:, None]) / 2
    return (strengths[:, None] * pairs).sum() / (len(a) - 1)


def trace_norm(
    a: Tensor,  # [tasks, rank, in]
    b: Tensor,  # [tasks, out, rank]
    strengths: Tensor,  # [tasks]
) -> Tensor:  # []
    """Compute the sum of the singular values of the matrix whose rows are the tasks' updates `λ_t vec(ΔW_t)`.

    With the Gramian `G` of the rows, it is `tr G^½`, whose gradient is `G^{-½}` times the rows; only `G`
    `[tasks, tasks]` is decomposed, in float64. Directions without length have no gradient.
    """
    products = inner_products(a.double(), b.double()) * torch.outer(strengths, strengths).double()
    values, vectors = torch.linalg.eigh((products.detach() + products.detach().T) / 2)
    kept = values > 1e-12 * values[-1].clamp(min=1e-60)
    roots = torch.where(kept, values.clamp(min=1e-60).rsqrt(), 0)
    return (products * ((vectors * roots) @ vectors.T)).sum().to(a.dtype)


def overlap(
    shared: tuple[Tensor, Tensor],  # [rank, in], [out, rank]
    a: Tensor,  # [tasks, rank, in]
    b: Tensor,  # [tasks, out, rank]
    strengths: Tensor,  # [tasks]
) -> Tensor:  # []
    """Compute `Σ_t λ_t ‖ΔW ΔW_tᵀ‖²` of a shared update and private ones, by products of ranks alone.

    `‖B (A A_tᵀ) B_tᵀ‖² = tr(BᵀB M_t B_tᵀB_t M_tᵀ)` with `M_t = A A_tᵀ`; cost `tasks rank² (in + out)`.
    """
    inputs = torch.einsum("ax,tbx->tab", shared[0], a)
    outputs = torch.einsum("tya,tyb->tab", b, b)
    gram = shared[1].mT @ shared[1]
    return (strengths * (gram @ inputs @ outputs * inputs).sum((-1, -2))).sum()


def factors(adapters: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:  # [rank, in] -> [tasks, rank, in]
    """Stack the matrices of the tasks' adapters of one layer."""
    return torch.stack([a for a, _ in adapters]), torch.stack([b for _, b in adapters])
