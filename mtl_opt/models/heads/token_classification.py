"""One label per word."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.models.heads.base import Head, HeadRows, checked_labels, like, projection


class TokenClassificationHead(Head):
    """Choose one of a few labels for every word, at its first token: named entities, parts of speech.

    The loss is the mean over labelled words. Tokens labelled `IGNORE_INDEX` take no part.

    Args:
        dim: Width of the hidden states.
        labels: Names of the classes.
        dropout: Share of the features that are dropped in training.
        hidden: Width of a tanh layer between hidden states and logits; 0 for none.
    """

    summary: ClassVar[str] = "one label per word, at its first token: entities, parts of speech"
    reads: ClassVar[str] = "words"
    needs_labels: ClassVar[bool] = True

    def __init__(self, dim: int, *, labels: Sequence[str], dropout: float = 0.1, hidden: int = 0) -> None:
        super().__init__()
        names = checked_labels(labels)
        self.options = {"labels": list(names), "dropout": dropout, "hidden": hidden}
        self.layers = projection(dim, len(names), hidden, dropout)

    def forward(self, rows: HeadRows) -> Tensor:  # -> [rows, seq, labels]
        """Compute the logits of every token.

        Args:
            rows: Rows of the task.

        Returns:
            Logits. `[rows, seq, labels]`
        """
        return self.layers(like(rows.hidden, self.layers))

    def loss(self, rows: HeadRows) -> tuple[Tensor, Tensor]:  # [], []
        """Sum the cross-entropy over labelled words.

        Args:
            rows: Rows of the task; `labels` are class indices at the first token of each labelled word.

        Returns:
            The sum in nats `[]`, and the number of labelled words `[]`.
        """
        logits = self(rows).float()
        total = F.cross_entropy(logits.flatten(0, 1), rows.labels.flatten(), reduction="sum", ignore_index=IGNORE_INDEX)
        return total, (rows.labels != IGNORE_INDEX).sum()
