"""Evaluation of heads: one forward gives loss and predictions, nothing is generated."""

from dataclasses import dataclass, field

import torch

from mtl_opt.batch import IGNORE_INDEX, TaskBatch, task_rows
from mtl_opt.data import TargetView, collate
from mtl_opt.models import MultiTaskModel, labels_of
from mtl_opt.training.setup.data import Prepared
from mtl_opt.training.setup.model_settings import EvaluationSettings, autocast


@dataclass
class HeadAnswers:
    """The losses and predictions of a head on held-out rows; a label that no answer can meet counts as a miss.

    Attributes:
        loss: Sum of the losses.
        count: Labelled rows or words that it sums over, misses aside.
        predictions: Predicted label or number of every labelled row or word.
        references: True label or number of each.
        rows: Index of the held-out row of each.
    """

    loss: float = 0.0
    count: int = 0
    predictions: list[str | float] = field(default_factory=list)
    references: list[str | float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


@torch.no_grad()
def answers_of_head(model: MultiTaskModel, task: str, prepared: Prepared, how: EvaluationSettings) -> HeadAnswers:
    """Run a head on the held-out rows of its task."""
    place, rows = model.tasks.index(task), prepared.eval_encoded[task]
    head, names = model.head_of(task), labels_of(model, task)
    assert isinstance(rows, TargetView)
    device, found, size = next(model.parameters()).device, HeadAnswers(), how.batch_size
    for begin in range(0, len(rows), size):
        chunk = [rows[i] for i in range(begin, min(begin + size, len(rows)))]
        batch = collate([*([] for _ in range(place)), chunk], prepared.tokenizer.pad_token_id).to(device)
        with task_rows(batch.task_ids), autocast(device, how.precision):
            ((_, _, part),) = model.parts(batch)
            loss, number = head.loss(part)
            values = head(part).float()
        missed = [(i, label) for i in range(begin, begin + len(chunk)) for label in rows.missed[i]]
        found.loss, found.count = found.loss + float(loss), found.count + int(number)
        known, wanted = _labelled(batch, head.reads)
        said = (values if names is None else values.argmax(-1))[known].tolist()
        found.predictions += said if names is None else [names[i] for i in said]
        found.references += wanted if names is None else [names[int(i)] for i in wanted]
        found.rows += (known.nonzero()[:, 0] + begin).tolist()
        if names is not None:
            words = head.reads == "words"  # a word without a token has no answer; a row has one, which is wrong
            found.predictions += ["" if words else names[int(values[i - begin].argmax())] for i, _ in missed]
            found.references += [label for _, label in missed]
            found.rows += [i for i, _ in missed]
    return found


def _labelled(batch: TaskBatch, reads: str) -> tuple[torch.Tensor, list[float]]:  # [rows] or [rows, seq]
    """Return a mask of the labelled rows or words, and their labels."""
    if reads == "words":
        known = batch.labels != IGNORE_INDEX
        return known, batch.labels[known].tolist()
    assert batch.targets is not None
    known = ~torch.isnan(batch.targets)
    return known, batch.targets[known].tolist()
