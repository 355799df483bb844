"""Affinity of tasks: cosines of their gradients, or the effect of a step for one on the loss of another."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mtl_opt.affinity.layer_conflict import MeasuredConflict, read_lines
from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.errors import InputError
from mtl_opt.gradients.rows.shards import local_shard
from mtl_opt.linalg import cosines
from mtl_opt.models import task_losses
from mtl_opt.results import write_text
from mtl_opt.training.run.state import Run
from mtl_opt.training.run.step import Parts

LOOKAHEAD_JSONL = "lookahead.jsonl"


class LookaheadWatch:
    """Measure how a step on one task's gradient alone changes every task's loss (TAG).

    With `θ_i = θ - η g_i` on the shared parameters, `Z[i, j] = 1 - L_j(θ_i) / L_j(θ)` on the same rows: above 0 where
    task i helps task j. Dropout is off for both losses.

    Cost: one forward more than there are tasks, every `every` steps.

    Departures: the paper takes a step of its optimizer; here `η g_i` has the length that a first step of Adam has,
    `learning_rate sqrt(parameters)`, for every task. A plain gradient step at an Adam learning rate changes no loss by
    more than rounding.

    Args:
        run: The run, before its first step or restored.
        every: Steps between two measurements.

    Raises:
        InputError: If nothing is shared, or the engine keeps no rows.

    References:
        Fifty, Amid, Zhao, Yu, Anil, Finn, `Efficiently Identifying Task Groupings for Multi-Task Learning
        <https://arxiv.org/abs/2109.04617>`_, NeurIPS 2021, equation 1.
    """

    def __init__(self, run: Run, every: int) -> None:
        if run.parts.grads.engine.name == "two_pass":
            raise InputError("`gradient_engine: two_pass` keeps no rows, which a lookahead needs; use `one_pass`.")
        if not run.parts.grads.buffer.parameters:
            raise InputError("Nothing is shared, so no task's step changes another's loss.")
        self.path = Path(run.output.output_dir) / LOOKAHEAD_JSONL
        self.every = every
        self.rate = run.settings["learning_rate"]
        kept = [line for line in read_lines(self.path) if line["step"] <= run.step] if run.step else []
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def __call__(self, parts: Parts, batches: Sequence[TaskBatch], step: int) -> None:
        """Append a measurement every `every` steps."""
        if step % self.every:
            return
        found = lookahead(parts, batches, self.rate)
        rows = [[None if math.isnan(value) else value for value in row] for row in found.tolist()]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "affinity": rows}) + "\n")


@torch.no_grad()
def lookahead(parts: Parts, batches: Sequence[TaskBatch], rate: float) -> Tensor:  # -> [tasks, tasks]
    """Measure all losses after a step for each task in turn; the parameters are restored."""
    grads = parts.grads
    was_training = parts.model.training
    parts.model.eval()
    kept = {name: local_shard(p).clone() for name, p in grads.buffer.parameters.items()}
    found = torch.full((grads.num_tasks, grads.num_tasks), torch.nan, dtype=torch.float64)
    try:
        before = _losses(parts, batches)
        for task in grads.present:
            row = grads.jacobian[task]
            norm = float(row.double().norm())
            if norm == 0:
                continue
            factor = rate * math.sqrt(row.numel()) / norm  # the length of a first step of Adam
            for name, parameter in grads.buffer.parameters.items():
                part = row[grads.buffer.tensors[name]].to(parameter.device, parameter.dtype)
                local_shard(parameter).sub_(factor * part.view(local_shard(parameter).shape))
            found[task] = 1 - _losses(parts, batches) / before
            _put_back(parts, kept)
    finally:
        _put_back(parts, kept)
        parts.model.train(was_training)
    return found


def _put_back(parts: Parts, kept: dict[str, Tensor]) -> None:
    """Restore the shared parameters bit for bit."""
    for name, parameter in parts.grads.buffer.parameters.items():
        local_shard(parameter).copy_(kept[name])


def _losses(parts: Parts, batches: Sequence[TaskBatch]) -> Tensor:  # -> [tasks]
    """Average every task's loss over the micro-batches; NaN where a task is absent."""
    size = parts.grads.num_tasks
    sums, totals = torch.zeros(2, size, dtype=torch.float64).unbind()
    for batch in batches:
        with task_rows(batch.task_ids), parts.autocast(batch.input_ids.device):
            losses, counts = task_losses(parts.model, batch, size)
        sums, totals = sums + losses.double().cpu() * counts.cpu(), totals + counts.cpu()
    return sums / torch.where(totals > 0, totals, torch.nan)


def lookahead_affinity(folder: Path) -> Tensor:  # -> [tasks, tasks]
    """Average the measurements over training."""
    lines = read_lines(folder / LOOKAHEAD_JSONL)
    if not lines:
        raise InputError(f"`{folder}` holds no measured step ({LOOKAHEAD_JSONL}); choose another `output_dir`.")
    values = [[[math.nan if v is None else v for v in row] for row in line["affinity"]] for line in lines]
    return torch.tensor(values, dtype=torch.float64).nanmean(0)


def cosine_affinity(measured: MeasuredConflict) -> Tensor:  # -> [tasks, tasks]
    """Average the cosine of every pair's shared gradients over training."""
    parts = measured.windows if measured.corrected else measured.steps
    whole = torch.stack(list(parts.values())).sum(0)
    return torch.stack([cosines(one) for one in whole]).nanmean(0)
