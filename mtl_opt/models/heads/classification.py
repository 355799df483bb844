"""One label per row."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mtl_opt.models.heads.base import POOLINGS, Head, HeadRows, checked_labels, labelled, like, projection


class ClassificationHead(Head):
    """Choose one of a few labels for a whole row: cross-entropy on a pooled representation.

    The loss is the mean over labelled rows. A row whose target is NaN takes no part.

    Args:
        dim: Width of the hidden states.
        labels: Names of the classes.
        pooling: "cls" (first token), "mean", "last" (the last token that is no padding), or "task_attention": an
            attention of the task's own (`TaskAttention`) over the row's tokens, and their mean.
        dropout: Share of the representation's features that are dropped in training.
        hidden: Width of a tanh layer between representation and logits; 0 for none.
        label_smoothing: Share of the target spread over all labels.
    """

    summary: ClassVar[str] = "one label per row: cross-entropy on a pooled representation"
    reads: ClassVar[str] = "row"
    needs_labels: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        labels: Sequence[str],
        pooling: str = "mean",
        dropout: float = 0.1,
        hidden: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        names = checked_labels(labels)
        self.options = {
            "labels": list(names), "pooling": pooling, "dropout": dropout, "hidden": hidden,
            "label_smoothing": label_smoothing,
        }  # fmt: skip
        self.pool = POOLINGS[pooling](dim)
        self.label_smoothing = label_smoothing
        self.layers = projection(dim, len(names), hidden, dropout)

    def forward(self, rows: HeadRows) -> Tensor:  # -> [rows, labels]
        """Compute the logits.

        Args:
            rows: Rows of the task.

        Returns:
            Logits. `[rows, labels]`
        """
        return self.layers(self.pool(like(rows.hidden, self.layers), rows.mask))

    def loss(self, rows: HeadRows) -> tuple[Tensor, Tensor]:  # [], []
        """Sum the cross-entropy over labelled rows.

        Args:
            rows: Rows of the task; `targets` are class indices.

        Returns:
            The sum in nats `[]`, and the number of labelled rows `[]`.
        """
        known = labelled(rows.targets)
        logits = self(rows).float()
        assert rows.targets is not None
        # a missing target is put to class 0 and weighted 0: no row is gathered, so nothing waits for the GPU
        targets = torch.where(known, rows.targets, 0).long()
        each = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        return torch.where(known, each, 0).sum(), known.sum()
