"""Loss and metrics of tasks that a head answers: no text is generated, one forward gives both."""

import math
from typing import Any

import torch

from mtl_opt.batch import IGNORE_INDEX, TaskBatch, task_rows
from mtl_opt.data import collate
from mtl_opt.evaluation import accuracy, macro_f1, mean_squared_error, pearson
from mtl_opt.models import MultiTaskModel
from mtl_opt.training.config import TrainConfig, precision_of
from mtl_opt.training.prepare import Prepared


@torch.no_grad()
def evaluate_head(model: MultiTaskModel, task: str, prepared: Prepared, config: TrainConfig) -> dict[str, float]:
    """Measure a head on the held-out rows of its task.

    Args:
        model: The model, in evaluation mode.
        task: Name of the task.
        prepared: The data.
        config: Batch size, autocast.

    Returns:
        `loss` (mean over what is labelled), and `accuracy` and `f1` (macro average over labels) of rows or words, or
        `mse` and `pearson` of numbers; empty where no held-out row has a label.
    """
    place, rows = model.tasks.index(task), prepared.eval_encoded[task]
    head = model.head_of(task)
    device = next(model.parameters()).device
    precision, size = precision_of(config), config.per_device_eval_batch_size
    total, count = 0.0, 0
    predictions: list[float] = []
    references: list[float] = []
    for begin in range(0, len(rows), size):
        chunk = [rows[i] for i in range(begin, min(begin + size, len(rows)))]
        batch = collate([*([] for _ in range(place)), chunk], prepared.tokenizer.pad_token_id).to(device)
        with task_rows(batch.task_ids), torch.autocast(device.type, precision, enabled=precision is not None):
            ((_, _, part),) = model.parts(batch)
            loss, number = head.loss(part)
            values = head(part)
        total, count = total + float(loss), count + int(number)
        said, wanted = labelled_pairs(values.float(), batch, head)
        predictions, references = predictions + said, references + wanted
    return {"loss": total / count, **metrics_of(head, predictions, references)} if count else {}


def labelled_pairs(values: torch.Tensor, batch: TaskBatch, head: Any) -> tuple[list[float], list[float]]:
    """Pair what a head says with what is labelled.

    Args:
        values: Outputs of the head.
        batch: Rows of its task alone.
        head: The head.

    Returns:
        Predicted classes or numbers, and the true ones.
    """
    said = values.argmax(-1) if head.needs_labels else values
    if head.reads == "words":
        known = batch.labels != IGNORE_INDEX
        return said[known].tolist(), batch.labels[known].tolist()
    assert batch.targets is not None
    known = ~torch.isnan(batch.targets)
    return said[known].tolist(), batch.targets[known].tolist()


def metrics_of(head: Any, predictions: list[float], references: list[float]) -> dict[str, float]:
    """Compare predictions with references.

    Args:
        head: Says whether these are classes or numbers.
        predictions: What was said.
        references: What is true.

    Returns:
        The metrics; a correlation is left out where it does not exist.
    """
    if head.needs_labels:
        return {"accuracy": accuracy(predictions, references), "f1": macro_f1(predictions, references)}
    found = {"mse": mean_squared_error(predictions, references), "pearson": pearson(predictions, references)}
    return {name: value for name, value in found.items() if not math.isnan(value)}
