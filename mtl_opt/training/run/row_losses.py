"""The loss of every training row before training, by which a curriculum of rows may be sorted."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_opt.batch import task_rows
from mtl_opt.data import PacedRows, Sampler, collate
from mtl_opt.models import task_losses
from mtl_opt.models.precision import evaluation_mode
from mtl_opt.training.processes import gather
from mtl_opt.training.setup.data import Prepared
from mtl_opt.training.setup.model_settings import EvaluationSettings, autocast

logger = logging.getLogger(__name__)


def waits_for_losses(sampler: Sampler) -> bool:
    """Return whether the rows of a sampler are sorted by their loss."""
    return any(isinstance(order, PacedRows) and order.pacing.rows == "loss" for order in sampler.orders.values())


def rank_rows(sampler: Sampler, losses: Mapping[str, Any]) -> None:
    """Sort the rows of every task by their losses."""
    for task, order in sampler.orders.items():
        if isinstance(order, PacedRows):
            order.rank(losses[task])


def sort_by_loss(
    sampler: Sampler, model: nn.Module, prepared: Prepared, how: EvaluationSettings
) -> dict[str, Tensor] | None:
    """Measure every row where a sampler waits for that, and sort the rows by it."""
    if not waits_for_losses(sampler):
        return None
    losses = measure_rows(model, prepared, how)
    rank_rows(sampler, losses)
    return losses


def measure_rows(model: nn.Module, prepared: Prepared, how: EvaluationSettings) -> dict[str, Tensor]:  # [rows] by task
    """Measure the loss of every training row; all processes take the values of the first."""
    begin = time.perf_counter()
    with evaluation_mode(model), torch.no_grad():
        found = {task: _losses(model, task, prepared, how) for task in prepared.tasks}
    rows = sum(len(losses) for losses in found.values())
    logger.info(
        "The loss of %d rows was measured once, to sort them (`rows: loss`): %.1f s.", rows, time.perf_counter() - begin
    )
    return gather(found)[0]


def _losses(model: nn.Module, task: str, prepared: Prepared, how: EvaluationSettings) -> Tensor:  # -> [rows]
    """Measure the loss of every row of a task, rows of one length together."""
    rows = prepared.train[task]
    tasks: Sequence[str] = getattr(model, "tasks", prepared.tasks)
    own, device = tasks.index(task), next(model.parameters()).device
    found = torch.empty(len(rows))
    by_length = np.argsort(rows.lengths, kind="stable")
    for begin in range(0, len(rows), how.batch_size):
        chosen = by_length[begin : begin + how.batch_size].tolist()
        batch = collate([[rows[i] for i in chosen]], prepared.tokenizer.pad_token_id).to(device)
        # Every row is a task of its own to the loss, and of its task to adapters and heads.
        owners = own + len(tasks) * torch.arange(len(chosen), device=device)
        with task_rows(torch.full_like(owners, own)), autocast(device, how.precision):
            losses, _ = task_losses(model, replace(batch, task_ids=owners), len(tasks) * len(chosen))
        found[chosen] = losses[owners].float().cpu()
    return found
