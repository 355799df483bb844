"""What every head is: a module of one task alone, from the hidden states of that task's rows to outputs and a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtl_opt.errors import InputError
from mtl_opt.models.sharing.parts.task_attention import TaskAttention

Pooling = Callable[[Tensor, Tensor], Tensor]
"""From hidden states `[rows, seq, dim]` and mask `[rows, seq]` to one vector per row `[rows, dim]`."""


@dataclass(frozen=True)
class HeadRows:
    """Rows of one task in a batch, as read by the shared model.

    Attributes:
        hidden: Last hidden states. `[rows, seq, dim]`
        mask: 1 for tokens, 0 for padding. `[rows, seq]`
        labels: What every token should give, `IGNORE_INDEX` where nothing is learnt. `[rows, seq]`
        targets: What every row should give: a class index or a number, NaN where it is missing. `[rows]`
        output: The model's own output layer; None where the model has none.
        shared: What the output layer says where a token is learnt, in the order of the tokens, where it was asked for
            the rows of all tasks at once; else None. `[learnt, vocabulary]`
    """

    hidden: Tensor  # [rows, seq, dim]
    mask: Tensor  # [rows, seq]
    labels: Tensor  # [rows, seq]
    targets: Tensor | None  # [rows]
    output: Callable[[Tensor], Tensor] | None = None  # [..., dim] -> [..., vocabulary]
    shared: Tensor | None = None  # [learnt, vocabulary]


@dataclass(frozen=True)
class Output:
    """Outputs of one task's head for its rows in a batch.

    Attributes:
        task: Name of the task.
        rows: Which rows of the batch these are. `[rows]`
        values: Class logits `[rows, labels]`, of every token `[rows, seq, labels]`, numbers `[rows]`, or next-token
            logits `[rows, seq, vocabulary]`.
    """

    task: str
    rows: Tensor  # [rows]
    values: Tensor


class Head(nn.Module, ABC):
    """Turn hidden states into the outputs of one task. A head is either this or final.

    All its parameters are private to its task. It computes in float32 whatever the base is stored in; under autocast
    its linear layers follow the autocast.

    Attributes:
        reads: What an answer of the task is: one value per "row", one label per "words", or "text".
        needs_labels: Whether the task has a fixed set of labels.
    """

    reads: ClassVar[str]
    needs_labels: ClassVar[bool] = False

    @abstractmethod
    def forward(self, rows: HeadRows) -> Tensor:
        """Compute the outputs.

        Args:
            rows: Rows of the head's task.

        Returns:
            Logits `[rows, labels]` or `[rows, seq, labels]`, predictions `[rows]`, or next-token logits
            `[rows, seq, vocabulary]`.
        """

    @abstractmethod
    def loss(self, rows: HeadRows) -> tuple[Tensor, Tensor]:  # [], []
        """Sum the losses of everything that is labelled.

        Args:
            rows: Rows of the head's task.

        Returns:
            Sum of the losses in float32 `[]`, and the number of labelled rows (or tokens) it sums over `[]`.
        """

    def describe(self) -> dict[str, Any]:
        """Return the options that the head was built with.

        Returns:
            Plain values: the arguments of the constructor that are not sizes of the model.
        """
        return dict(self.options)

    options: dict[str, Any]
    summary: ClassVar[str]
    """What it answers, in one sentence."""


def like(hidden: Tensor, layers: nn.Module) -> Tensor:
    """Bring hidden states to the precision of a head's own layers."""
    return hidden.to(next(layers.parameters()).dtype)


def labelled(targets: Tensor | None) -> Tensor:  # [rows] -> [rows]
    """Find the rows that have a target."""
    if targets is None:
        raise ValueError("`TaskBatch.targets` is None, but a task of the batch has a head that needs them.")
    return ~torch.isnan(targets)


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check that there are at least two labels, all different."""
    names = tuple(str(label) for label in labels)
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"`labels` must be at least two different names, got {', '.join(names) or 'none'}.")
    return names


def fresh_linear(inputs: int, outputs: int) -> nn.Linear:
    """Build a linear layer as heads of transformers start: small random weights, no bias."""
    layer = nn.Linear(inputs, outputs, dtype=torch.float32)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def projection(dim: int, outputs: int, hidden: int, dropout: float) -> nn.Sequential:
    """Build what heads put on a representation: dropout, perhaps a tanh layer, and the outputs."""
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), fresh_linear(dim, outputs))
    between = [nn.Dropout(dropout), fresh_linear(dim, hidden), nn.Tanh()]
    return nn.Sequential(*between, nn.Dropout(dropout), fresh_linear(hidden, outputs))


def first(hidden: Tensor, mask: Tensor) -> Tensor:  # [rows, seq, dim], [rows, seq] -> [rows, dim]
    """Select the first token that is not padding: `[CLS]` of an encoder."""
    return _at(hidden, mask.long().argmax(1))


def mean(hidden: Tensor, mask: Tensor) -> Tensor:  # [rows, seq, dim], [rows, seq] -> [rows, dim]
    """Average over the tokens that are no padding."""
    kept = mask.to(hidden).unsqueeze(-1)
    # not 0 · hidden: what padding holds may be infinite in half precision
    return hidden.masked_fill(kept == 0, 0).sum(1) / kept.sum(1).clamp(min=1)


def last(hidden: Tensor, mask: Tensor) -> Tensor:  # [rows, seq, dim], [rows, seq] -> [rows, dim]
    """Select the last token that is not padding: the only one of a causal model that has seen the whole row."""
    return _at(hidden, mask.shape[1] - 1 - mask.long().flip(1).argmax(1))


def _at(hidden: Tensor, places: Tensor) -> Tensor:  # [rows, seq, dim], [rows] -> [rows, dim]
    """Select one token of every row."""
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


class AttentionPooling(nn.Module):
    """Let the tokens of a row attend to each other by an attention of the task's own, then average them.

    Args:
        dim: Width of the hidden states; the attention has as many heads of equal width as fit, at most 8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = TaskAttention(dim, 1, next(heads for heads in range(8, 0, -1) if dim % heads == 0))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:  # [rows, seq, dim], [rows, seq] -> [rows, dim]
        """Pool the rows of the head's task."""
        # what padding holds may be infinite in half precision
        return mean(self.attention(hidden.masked_fill(mask.unsqueeze(-1) == 0, 0), 0, mask=mask), mask)


POOLINGS: dict[str, Callable[[int], Pooling]] = {
    "cls": lambda dim: first,  # noqa: ARG005 - only an attention has a width
    "mean": lambda dim: mean,  # noqa: ARG005
    "last": lambda dim: last,  # noqa: ARG005
    "task_attention": AttentionPooling,
}
"""What builds each pooling for hidden states of a width, by the name of `pooling`."""
