"""Predictions of the heads, in the words of each task."""

from typing import Any

import torch

from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.errors import InputError
from mtl_opt.models.heads.base import Head, Output
from mtl_opt.models.heads.model import MultiTaskModel
from mtl_opt.models.precision import evaluation_mode


def labels_of(model: MultiTaskModel, task: str) -> list[str] | None:
    """Name the classes of a task.

    Args:
        model: A model with heads.
        task: Name of the task.

    Returns:
        The label of each class; None for a task without classes.
    """
    head = model.head_of(task)
    return list(head.options["labels"]) if head.needs_labels else None


@torch.no_grad()
def predict(model: MultiTaskModel, batch: TaskBatch) -> list[Any]:
    """Predict every row of a batch of any mix of tasks, in evaluation mode; the model's mode is restored.

    Args:
        model: A model with heads.
        batch: Rows; `labels` may be all `IGNORE_INDEX`, and `targets` None.

    Returns:
        One entry per row: the name of the class, a float, or a list of class names. Of words there is one name per
        labelled token, or, where nothing is labelled, one per token.

    Raises:
        InputError: If a row is of a task that answers in text: those are generated, not predicted.
    """
    with evaluation_mode(model):
        outputs = model.outputs(batch)
    found: list[Any] = [None] * len(batch.task_ids)
    for output in outputs:
        head = model.head_of(output.task)
        if head.reads == "text":
            raise InputError(f"Task `{output.task}` answers in text; call `generate`, `predict` is for labels.")
        for row, value in zip(output.rows.tolist(), _predictions(head, output, batch), strict=True):
            found[row] = value
    return found


def _predictions(head: Head, output: Output, batch: TaskBatch) -> list[Any]:
    """Turn the outputs of one task into names or numbers, one entry per row."""
    if not head.needs_labels:
        return output.values.float().tolist()
    names, chosen = head.options["labels"], output.values.argmax(-1)
    if head.reads == "row":
        return [names[index] for index in chosen.tolist()]
    wanted = batch.labels[output.rows] != IGNORE_INDEX
    tokens = batch.attention_mask[output.rows].bool()
    kept = torch.where(wanted.any(1, keepdim=True), wanted, tokens)
    return [[names[i] for i in row[keep].tolist()] for row, keep in zip(chosen, kept, strict=True)]
