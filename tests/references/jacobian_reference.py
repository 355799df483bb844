"""Task gradients the slow, literal way: for every task a fresh copy of the model and one plain backward."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE_INDEX = -100
LossesOf = Callable[[nn.Module, "Rows", int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rows:
    """Hold text rows, what they should learn, and their tasks."""

    input_ids: Tensor  # [batch, seq]
    attention_mask: Tensor  # [batch, seq]
    labels: Tensor  # [batch, seq]
    ids: Tensor  # [batch]


def random_rows(ids: Sequence[int], seq: int = 9, vocab: int = 61) -> Rows:
    """Draw rows of different lengths: a prompt of two tokens that is not learnt, an answer, padding."""
    tokens = torch.randint(1, vocab, (len(ids), seq))
    lengths = torch.randint(4, seq + 1, (len(ids), 1))
    position = torch.arange(seq)
    mask = (position < lengths).long()
    labels = torch.where((position >= 2) & (position < lengths), tokens, IGNORE_INDEX)
    return Rows(tokens * mask, mask, labels, torch.tensor(ids))


def join(batches: Sequence[Rows]) -> Rows:
    """Put micro-batches together to one large batch."""
    fields = ("input_ids", "attention_mask", "labels", "ids")
    return Rows(*(torch.cat([getattr(batch, field) for batch in batches]) for field in fields))


def token_losses(model: nn.Module, rows: Rows, num_tasks: int) -> tuple[Tensor, Tensor]:
    """Average the next-token loss over the label tokens of each task: losses `[tasks]`, tokens `[tasks]`."""
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
    losses, counts = [], []
    for task in range(num_tasks):
        own = rows.ids == task
        targets = rows.labels[own][:, 1:].flatten()
        counts.append((targets != IGNORE_INDEX).sum())
        total = F.cross_entropy(logits[own][:, :-1].flatten(0, 1), targets, reduction="sum")
        losses.append(total / counts[-1].clamp(min=1))
    return torch.stack(losses), torch.stack(counts)


def class_losses(model: nn.Module, rows: Rows, num_tasks: int) -> tuple[Tensor, Tensor]:
    """Average the classification loss over the rows of each task: losses `[tasks]`, rows `[tasks]`."""
    positions = torch.arange(rows.input_ids.shape[1]).expand_as(rows.input_ids)
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, position_ids=positions).logits
    targets = rows.input_ids[:, 0] % 3
    losses, counts = [], []
    for task in range(num_tasks):
        own = rows.ids == task
        counts.append(own.sum())
        losses.append(F.cross_entropy(logits[own], targets[own], reduction="sum") / counts[-1].clamp(min=1))
    return torch.stack(losses), torch.stack(counts)


def reference_jacobian(
    model: nn.Module, losses_of: LossesOf, rows: Rows, num_tasks: int
) -> dict[str, Tensor]:  # {parameter: [tasks, *shape]}
    """Differentiate each task's loss alone, on a copy of the model that nothing else has touched."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: torch.zeros(num_tasks, *p.shape, dtype=p.dtype) for name, p in trainable.items()}
    for task in range(num_tasks):
        fresh = copy.deepcopy(model)
        fresh.zero_grad()
        losses_of(fresh, rows, num_tasks)[0][task].backward()
        for name, parameter in fresh.named_parameters():
            if parameter.grad is not None:
                found[name][task] = parameter.grad
    return found
