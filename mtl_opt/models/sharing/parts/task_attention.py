"""Attention of each task's own after a shared projection."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.batch import current_task_rows, task_rows
from mtl_opt.checks import at_least, fraction
from mtl_opt.models.sharing.parts.private_linear import PrivateLinear


class TaskAttention(nn.Module):
    r"""Attention with private projections per task on features that all tasks share.

    With `h = W x + b` shared by all tasks, a row of task t becomes

        concat_heads( softmax(q kᵀ / √(dim / num_heads) + mask) v ) O_tᵀ + o_t,   [q k v] = h P_tᵀ + p_t.

    Rows are told apart by `task_rows`, or are all of the task that the call names; the attention itself has no
    parameters and runs over the whole batch at once. Cost: that of one attention of this width, plus the
    shared projection (`dim²` products per token).

    Args:
        dim: Features of a token, a multiple of `num_heads`.
        num_tasks: Number of tasks.
        num_heads: Number of heads.
        dropout: Share of the attention weights that are dropped in training.
        tasks: Names of the tasks; default "0", "1", ...

    Attributes:
        shared: The shared projection.
        qkv: Private projections to queries, keys and values, in this order.
        out: Private projections of the heads' outputs.

    Raises:
        ValueError: If `dim` is not divisible by `num_heads`, or a size or the names do not fit.

    Examples:
        >>> import torch
        >>> from mtl_opt import TaskAttention, task_rows
        >>> attention = TaskAttention(dim=8, num_tasks=2, num_heads=2)
        >>> with task_rows(torch.tensor([0, 1, 1])):
        ...     attention(torch.zeros(3, 5, 8), causal=True).shape
        torch.Size([3, 5, 8])
        >>> attention(torch.zeros(3, 5, 8), 1).shape  # all rows are of task 1
        torch.Size([3, 5, 8])

    References:
        Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, NeurIPS 2017. Liu, Johns,
        Davison, `End-to-End Multi-Task Learning with Attention <https://arxiv.org/abs/1803.10704>`_, CVPR 2019: task
        attention on shared features (theirs are soft masks, see `mtan`).
    """

    def __init__(
        self, dim: int, num_tasks: int, num_heads: int, *, dropout: float = 0.0, tasks: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("num_tasks", num_tasks), ("num_heads", num_heads)):
            at_least(name, value, 1)
        if dim % num_heads:
            raise ValueError(f"`dim` must be divisible by `num_heads`, got {dim} and {num_heads}.")
        names = tuple(map(str, range(num_tasks))) if tasks is None else tuple(tasks)
        if len(set(names)) != num_tasks:
            raise ValueError(f"`tasks` must be {num_tasks} different names, got {list(names)}.")
        self.num_heads = num_heads
        self.dropout = fraction("dropout", dropout)
        self.shared = nn.Linear(dim, dim)
        self.qkv = PrivateLinear(dim, 3 * dim, names)
        self.out = PrivateLinear(dim, dim, names)

    @override
    def forward(
        self,
        x: Tensor,  # [batch, seq, dim]
        task_id: int | None = None,
        *,
        mask: Tensor | None = None,  # [batch, seq]
        causal: bool = False,
    ) -> Tensor:  # [batch, seq, dim]
        """Attend.

        Args:
            x: Features. `[batch, seq, dim]`
            task_id: Index of the task that all rows are of; None where a `task_rows` context names them.
            mask: True (or 1) for tokens, False (or 0) for padding, which nobody attends to. `[batch, seq]`
            causal: Whether a token sees only itself and those before it.

        Returns:
            New features; those of padding mean nothing. `[batch, seq, dim]`

        A `ValueError` says that the rows are packed, `task_id` or `mask` does not fit, or nothing says whose they are.
        """
        with self._rows(x, task_id):
            return self._attend(x, mask, causal)

    def _rows(self, x: Tensor, task_id: int | None) -> AbstractContextManager[None]:  # [batch, seq, dim]
        """Open the rows of one task, unless they are open already."""
        if task_id is None:
            return nullcontext()
        if not isinstance(task_id, int) or not 0 <= task_id < len(self.qkv.tasks):
            shown = f"a {type(task_id).__name__}" if isinstance(task_id, Tensor) else repr(task_id)
            raise ValueError(
                f"`task_id` must be the index of a task from 0 to {len(self.qkv.tasks) - 1}, got {shown}; rows of "
                "several tasks are named by `task_rows`, and padding by `mask=`."
            )
        ids, known = torch.full((len(x),), task_id, device=x.device), current_task_rows()
        return nullcontext() if known is not None and torch.equal(known.to(ids), ids) else task_rows(ids)

    def _attend(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:  # -> [batch, seq, dim]
        """Attend within the rows that are open."""
        ids = current_task_rows()
        if ids is not None and ids.dim() > 1:
            raise ValueError(
                "`TaskAttention` attends within whole rows, and the rows of this batch are packed (a task id per "
                "token); do not pack."
            )
        if mask is not None and mask.shape != x.shape[:2]:
            raise ValueError(f"`mask` must be {list(x.shape[:2])}, as the rows and tokens, got {list(mask.shape)}.")
        h = self.shared(x.to(self.shared.weight.dtype))
        q, k, v = rearrange(self.qkv(h), "b s (three h d) -> three b h s d", three=3, h=self.num_heads)
        dropout = self.dropout if self.training else 0.0
        seen = None if mask is None else _seen(mask.bool(), causal)
        y = F.scaled_dot_product_attention(q, k, v, seen, dropout, is_causal=causal and seen is None)
        return self.out(rearrange(y, "b h s d -> b s (h d)"))


def _seen(
    mask: Tensor,  # [batch, seq]
    causal: bool,
) -> Tensor:  # [batch, 1, seq, seq]
    """Build the attention mask; a token that would see no other sees itself."""
    # A row of the softmax with nothing to attend to would be NaN.
    size = mask.shape[1]
    seen = rearrange(mask, "b s -> b 1 1 s").expand(-1, 1, size, size)
    itself = torch.eye(size, dtype=torch.bool, device=mask.device)
    return (seen.tril() if causal else seen) | (itself & ~rearrange(mask, "b s -> b 1 s 1"))
