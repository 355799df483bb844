"""Losses of heads the slow, literal way: row by row, each through the model alone and without padding."""

from typing import Any

import torch
from torch import Tensor

from mtl_opt.batch import IGNORE_INDEX, TaskBatch


def pooled(hidden: Tensor, how: str) -> Tensor:  # [seq, dim] -> [dim]
    """Pool one row without padding."""
    return {"cls": hidden[0], "last": hidden[-1], "mean": hidden.mean(0)}[how]


def row_losses(model: Any, batch: TaskBatch, row: int) -> list[Tensor]:
    """List the losses of everything that is labelled in one row."""
    length = int(batch.attention_mask[row].sum())
    ids = batch.input_ids[row : row + 1, :length]
    head = model.heads[int(batch.task_ids[row])]
    base = model.base
    inner = base.model if hasattr(base, "lm_head") else base
    hidden = inner(input_ids=ids).last_hidden_state[0]
    labels = batch.labels[row, :length]
    if head.reads == "text":
        logits = hidden @ base.lm_head.weight.T
        if head.A is not None:
            logits = logits + head.scale * hidden @ head.A.weight.T @ head.B.weight.T
        chosen = [t for t in range(1, length) if labels[t] != IGNORE_INDEX]
        return [-logits[t - 1].log_softmax(-1)[labels[t]] for t in chosen]
    if head.reads == "words":
        logits = head.layers(hidden)
        return [-logits[t].log_softmax(-1)[labels[t]] for t in range(length) if labels[t] != IGNORE_INDEX]
    target = float(batch.targets[row])
    if target != target:
        return []
    out = head.layers(pooled(hidden, head.options["pooling"]))
    if not head.needs_labels:
        return [(out[0] - target) ** 2]
    return [-out.log_softmax(-1)[int(target)]]


def literal_losses(model: Any, batch: TaskBatch, num_tasks: int) -> tuple[Tensor, Tensor]:
    """Average the losses of each task: losses `[tasks]`, what they average `[tasks]`."""
    found: list[list[Tensor]] = [[] for _ in range(num_tasks)]
    for row, task in enumerate(batch.task_ids.tolist()):
        found[task] += row_losses(model, batch, row)
    means = [torch.stack(mine).mean() if mine else torch.zeros(()) for mine in found]
    return torch.stack(means), torch.tensor([len(mine) for mine in found])
