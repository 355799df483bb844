"""Text: next-token prediction by the model's own output layer, with a private adapter on it."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_opt.batch import IGNORE_INDEX, current_task_rows
from mtl_opt.models.heads.base import Head, HeadRows, like


class LanguageModelHead(Head):
    """Predict the next token: the shared output layer plus a low-rank adapter of this task alone.

    `logits = W h + (alpha / rank) · B A h` with `A [rank, dim]`, `B [vocabulary, rank]`, B = 0 at the start: the task
    begins as the pretrained model answers, and can shift its output distribution without touching the others'.
    The loss is the mean over label tokens.

    Args:
        dim: Width of the hidden states.
        vocabulary: Number of outputs of the shared output layer.
        rank: Rank of the adapter; 0 for none: the task then has no private parameter.
        alpha: Scale of the adapter; default twice the rank.
    """

    summary: ClassVar[str] = "text: the shared output layer with a private low-rank adapter on it"
    reads: ClassVar[str] = "text"

    def __init__(self, dim: int, vocabulary: int, *, rank: int = 8, alpha: int | None = None) -> None:
        super().__init__()
        self.options = {"rank": rank, "alpha": 2 * rank if alpha is None else alpha}
        self.scale = self.options["alpha"] / rank if rank else 0.0
        self.A: nn.Linear | None = None
        self.B: nn.Linear | None = None
        if rank:
            self.A = nn.Linear(dim, rank, bias=False, dtype=torch.float32)
            self.B = nn.Linear(rank, vocabulary, bias=False, dtype=torch.float32)
            nn.init.kaiming_uniform_(self.A.weight, a=math.sqrt(5))
            nn.init.zeros_(self.B.weight)

    def adapt(self, hidden: Tensor, logits: Tensor) -> Tensor:  # [..., dim], [..., vocabulary] -> [..., vocabulary]
        """Add the logits of the private adapter.

        Args:
            hidden: Hidden states. `[..., dim]`
            logits: What the shared output layer says of them. `[..., vocabulary]`

        Returns:
            The task's own logits. `[..., vocabulary]`
        """
        if self.A is None or self.B is None:
            return logits
        return logits + self.scale * self.B(self.A(like(hidden, self.A))).to(logits.dtype)

    def output_lora(self) -> tuple[Tensor, Tensor] | None:
        """Return the factors of what the private adapter adds to the output layer's weight, `B A`.

        Returns:
            `A` `[rank, dim]` and `B` with the scale in it `[vocabulary, rank]`; None with rank 0.
        """
        return None if self.A is None or self.B is None else (self.A.weight, self.B.weight * self.scale)

    def forward(self, rows: HeadRows) -> Tensor:  # -> [rows, seq, vocabulary]
        """Compute next-token logits at every position.

        Args:
            rows: Rows of the task.

        Returns:
            Logits. `[rows, seq, vocabulary]`
        """
        return self._logits(rows, rows.hidden)

    def loss(self, rows: HeadRows) -> tuple[Tensor, Tensor]:  # [], []
        """Sum the next-token loss over label tokens.

        Args:
            rows: Rows of the task; a token is predicted from the position before it.

        Returns:
            The sum in nats `[]`, and the number of label tokens `[]`.
        """
        targets = rows.labels[:, 1:]
        learnt = targets != IGNORE_INDEX
        if not bool(learnt.any()):
            return rows.hidden[:0].float().sum(), learnt.sum()
        hidden = rows.hidden[:, :-1][learnt]  # logits of all positions would be the largest tensor
        logits = self._logits(rows, hidden) if rows.shared is None else self.adapt(hidden, rows.shared)
        precise = torch.promote_types(logits.dtype, torch.float32)
        return F.cross_entropy(logits.to(precise), targets[learnt], reduction="sum"), learnt.sum()

    def _logits(self, rows: HeadRows, hidden: Tensor) -> Tensor:  # [..., dim] -> [..., vocabulary]
        """Compute logits by the shared output layer and the private adapter."""
        assert rows.output is not None
        return self.adapt(hidden, rows.output(hidden))


class RoutedOutput(nn.Module):
    """Stand in for an output layer while text is generated: shared logits plus those of each row's own task.

    Args:
        shared: The output layer.
        heads: Heads of all tasks, in the order of the task ids.
    """

    def __init__(self, shared: nn.Module, heads: nn.ModuleList) -> None:
        super().__init__()
        self.shared = shared
        self.heads = heads

    def forward(self, hidden: Tensor) -> Tensor:  # [batch, seq, dim] -> [batch, seq, vocabulary]
        """Compute next-token logits."""
        ids = current_task_rows()
        if ids is None or ids.shape[0] != hidden.shape[0]:
            raise ValueError("Generating needs `with task_rows(ids):`, one task id per row: heads differ by task.")
        logits = self.shared(hidden)
        for task in ids.unique().tolist():
            rows = (ids == task).nonzero().flatten()
            adapt = getattr(self.heads[task], "adapt", None)
            if adapt is not None:
                logits = logits.index_copy(0, rows, adapt(hidden[rows], logits[rows]))
        return logits
