"""One number per row."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl_opt.models.heads.base import POOLINGS, Head, HeadRows, labelled, like, projection

LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
"""Losses of a regression by the name of `loss`; huber turns linear at an error of 1."""


class RegressionHead(Head):
    """Predict one number for a whole row from a pooled representation.

    The loss is the mean over labelled rows, in the square of the target's unit with `mse`. A row whose target is NaN
    takes no part. Targets far from the range of −3 to 3 learn slowly: scale them in the data.

    Args:
        dim: Width of the hidden states.
        pooling: "cls" (first token), "mean", "last" (the last token that is no padding), or "task_attention": an
            attention of the task's own (`TaskAttention`) over the row's tokens, and their mean.
        dropout: Share of the representation's features that are dropped in training.
        hidden: Width of a tanh layer between representation and output; 0 for none.
        loss: "mse", "l1" or "huber".
    """

    summary: ClassVar[str] = "one number per row from a pooled representation"
    reads: ClassVar[str] = "row"

    def __init__(
        self, dim: int, *, pooling: str = "mean", dropout: float = 0.0, hidden: int = 0, loss: str = "mse"
    ) -> None:
        super().__init__()
        self.options = {"pooling": pooling, "dropout": dropout, "hidden": hidden, "loss": loss}
        self.pool = POOLINGS[pooling](dim)
        self.loss_of = LOSSES[loss]
        self.layers = projection(dim, 1, hidden, dropout)

    def forward(self, rows: HeadRows) -> Tensor:  # -> [rows]
        """Predict.

        Args:
            rows: Rows of the task.

        Returns:
            One number per row. `[rows]`
        """
        return self.layers(self.pool(like(rows.hidden, self.layers), rows.mask)).squeeze(-1)

    def loss(self, rows: HeadRows) -> tuple[Tensor, Tensor]:  # [], []
        """Sum the loss over labelled rows.

        Args:
            rows: Rows of the task.

        Returns:
            The sum `[]`, and the number of labelled rows `[]`.
        """
        known = labelled(rows.targets)
        assert rows.targets is not None
        each = self.loss_of(self(rows).float(), torch.where(known, rows.targets, 0).float(), reduction="none")
        return torch.where(known, each, 0).sum(), known.sum()
