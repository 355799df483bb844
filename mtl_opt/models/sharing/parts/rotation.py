"""Rotations of the last hidden state, one per task, and the gradients recorded on the way back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from mtl_opt.batch import Segments
from mtl_opt.models.sharing.parts.routing import by_task, parameters_by_task, rows_of_tasks


class Watch(torch.autograd.Function):
    """Identity in the forward; the backward accumulates each task's gradient and scales it."""

    @staticmethod
    @override
    def forward(ctx: Any, r: Tensor, rotations: "Rotations", segments: Segments) -> Tensor:
        ctx.rotations, ctx.segments = rotations, segments
        # A backward may be run more than once (engine per_task, `verify`): each task's first gradient counts.
        ctx.seen = torch.zeros(len(rotations.tasks), dtype=torch.bool, device=r.device)
        return r.view_as(r)

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rotations = ctx.rotations
        for task, (own,) in ctx.segments.split(gradient):
            flat = own.reshape(-1, own.shape[-1]).float()
            tokens = (flat != 0).any(-1).sum()
            new = ~ctx.seen[task] & (tokens > 0)
            rotations.sums[task] += torch.where(new, flat.sum(0), 0)
            rotations.tokens[task] += torch.where(new, tokens, 0)
            ctx.seen[task] |= new
        if not rotations.scale:
            return gradient, None, None
        factors = ctx.segments.spread(rotations.factors)
        return gradient * factors.view(*factors.shape, *[1] * (gradient.dim() - factors.dim())).to(gradient), None, None


class Rotations(nn.Module):
    """Turn the last hidden state of a row by the rotation of its task, `r = R_t z`.

    `R_t` consists of blocks `exp(S - Sᵀ)` along its diagonal, each turning `block` neighbouring features: exactly
    orthogonal whatever the parameters, and the identity at the start. The losses do not train it.

    Args:
        dim: Features.
        tasks: Names of the tasks.
        block: Features that one block turns, a divisor of `dim`.
        scale: Whether the tasks' gradients are brought to one norm on the way back.

    Attributes:
        angles: Entries of S below the diagonal, by task. `[dim / block, block (block - 1) / 2]`
        sums: Gradients seen since the last step, summed over tokens. `[tasks, dim]`
        tokens: How many tokens they are of. `[tasks]`
        factors: What gradients are multiplied by on the way back. `[tasks]`
        first_norms: Norm of each task's first mean gradient, 0 before it. `[tasks]`
    """

    saved_buffers = ("factors", "first_norms")

    def __init__(self, dim: int, tasks: Sequence[str], block: int, scale: bool = False) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.block = block
        self.scale = scale
        shape = (dim // block, block * (block - 1) // 2)
        self.angles = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for _ in tasks)
        self.sums: Tensor
        self.tokens: Tensor
        self.factors: Tensor
        self.first_norms: Tensor
        self.register_buffer("sums", torch.zeros(len(self.tasks), dim), persistent=False)
        self.register_buffer("tokens", torch.zeros(len(self.tasks)), persistent=False)
        self.register_buffer("factors", torch.ones(len(self.tasks)))
        self.register_buffer("first_norms", torch.zeros(len(self.tasks)))
        self._known: tuple[tuple[int, ...], Tensor] | None = None

    def matrices(self, tasks: Sequence[int]) -> Tensor:  # [tasks, dim / block, block, block]
        """Compute the blocks of the rotations of some tasks."""
        angles = torch.stack([self.angles[task] for task in tasks])
        rows, columns = torch.tril_indices(self.block, self.block, offset=-1, device=angles.device)
        lower = angles.new_zeros(*angles.shape[:2], self.block, self.block)
        lower[..., rows, columns] = angles
        # In float32 the exponential was seen to be off by 5e-5, and with it the orthogonality.
        precise = lower if lower.device.type == "mps" else lower.double()
        return torch.matrix_exp(precise - precise.mT).to(lower.dtype)

    def _current(self) -> Tensor:  # -> [tasks, dim / block, block, block]
        """Return the blocks of all tasks, cached until the parameters change."""
        version = tuple(x for p in self.angles for x in (p._version, p.data_ptr()))
        if self._known is None or self._known[0] != version:
            with torch.no_grad(), torch.autocast(self.sums.device.type, enabled=False):
                self._known = version, self.matrices(range(len(self.tasks)))
        return self._known[1]

    @override
    def forward(self, z: Tensor) -> Tensor:
        segments = rows_of_tasks(z, len(self.tasks))
        matrices = self._current().to(z.dtype)
        if segments.equal:
            flat = z.reshape(len(self.tasks), -1, z.shape[-1])
            r = _turned(flat, matrices).view_as(z)
        else:
            r = by_task(z, segments, lambda task, rows: _turned(rows.flatten(0, -2), matrices[task]).view_as(rows))
        if self.training and torch.is_grad_enabled() and r.requires_grad:
            return Watch.apply(r, self, segments)
        return r

    def take(self) -> Tensor:  # -> [tasks, dim + 1]
        """Return gradient sums and token counts since the last step, and reset them."""
        found = torch.cat([self.sums, self.tokens[:, None]], 1)
        self.sums.zero_()
        self.tokens.zero_()
        return found

    def misalignment(self, sums: Tensor, tasks: Sequence[int]) -> Tensor:  # [tasks, dim] -> []
        """Compute `Σ_t 1 - cos(R_tᵀ g_t, v)` with v the mean direction of all `R_tᵀ g_t`, held fixed."""
        wanted = torch.stack([sums[task] for task in tasks])
        wanted = wanted / wanted.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(wanted.dtype).tiny)
        blocks = wanted.view(*wanted.shape[:-1], -1, 1, self.block)  # as rows: g R is Rᵀ g
        back = (blocks @ self.matrices(tasks)).flatten(-3)
        mean = back.detach().mean(0)
        mean = mean / mean.norm().clamp(min=torch.finfo(mean.dtype).tiny)
        return (1 - back @ mean).sum()

    def balance(self, sums: Tensor, tokens: Tensor) -> None:  # [tasks, dim], [tasks]
        """Set the gradient factors of the next step so that all tasks get the same norm."""
        # Target norm Σ_t w_t n_t with w_t ∝ n_t / n_t(0): tasks that learn slowly count for more.
        norms = sums.norm(dim=-1) / tokens.clamp(min=1)
        here = (norms > 0) & norms.isfinite()
        self.first_norms.copy_(torch.where(here & (self.first_norms == 0), norms, self.first_norms))
        speed = torch.where(here, norms / self.first_norms.clamp(min=torch.finfo(norms.dtype).tiny), 0)
        target = (speed / speed.sum().clamp(min=torch.finfo(norms.dtype).tiny) * torch.where(here, norms, 0)).sum()
        self.factors.copy_(torch.where(here, target / norms.clamp(min=torch.finfo(norms.dtype).tiny), self.factors))

    def output_matrix_of(self, task: int) -> Tensor:  # [dim, dim]
        """Return the rotation of a task: with the output layer's `W` its logits are `(W R) z`."""
        return torch.block_diag(*self._current()[task])

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private parameters by task."""
        return parameters_by_task(self.tasks, self.angles)


def _turned(
    z: Tensor,  # [..., n, dim]
    matrices: Tensor,  # [..., dim / block, block, block]
) -> Tensor:  # [..., n, dim]
    """Rotate every block of features by its matrix."""
    blocks = z.unflatten(-1, matrices.shape[-3:-1]).transpose(-3, -2)  # [..., dim / block, n, block]
    return (blocks @ matrices.mT).transpose(-3, -2).flatten(-2)
