"""Batches to losses: one mean loss per task."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.models.encoder_decoder import answer_inputs, is_encoder_decoder
from mtl_opt.models.heads.model import MultiTaskModel
from mtl_opt.models.sharing import row_terms


def task_losses(model: nn.Module, batch: TaskBatch, num_tasks: int) -> tuple[Tensor, Tensor]:
    """Compute the mean next-token loss of every task over its own label tokens.

    A mean over the tokens of all tasks together, the usual default elsewhere, lets tasks with long answers dominate.

    Args:
        model: A causal language model, one of encoder and decoder, or a model with heads, which compute their own
            losses.
        batch: Rows of one micro-batch.
        num_tasks: Number of tasks, present or not.

    Returns:
        Mean loss of every task in nats, with the terms on rows of the way of sharing, 0 for an absent task `[tasks]`,
        and the label tokens it averages `[tasks]`; with heads the labelled rows, words or tokens, and of a regression
        the unit of its loss.
    """
    means, counts = (
        model(batch, num_tasks) if isinstance(model, MultiTaskModel) else _next_token(model, batch, num_tasks)
    )
    terms = row_terms(model)
    if terms is not None:  # with rows dealt to halves there are two losses per task
        means = means + terms.repeat(num_tasks // len(terms))
    return means, counts


def _next_token(model: nn.Module, batch: TaskBatch, num_tasks: int) -> tuple[Tensor, Tensor]:  # [tasks], [tasks]
    """Compute the mean next-token loss of every task, and the label tokens it averages."""
    if is_encoder_decoder(model):
        inputs, targets = answer_inputs(model, batch)
        logits = model(**inputs).logits
    else:  # a token is predicted from the position before it
        logits, targets = model(**_inputs(batch)).logits[:, :-1], batch.labels[:, 1:]
    learnt = targets != IGNORE_INDEX
    # Only the learnt positions: the float32 copy of all logits would be the largest tensor of the step.
    precise = torch.promote_types(logits.dtype, torch.float32)
    per_token = F.cross_entropy(logits[learnt].to(precise), targets[learnt], reduction="none")
    ids = batch.task_ids[:, 1:] if batch.task_ids.dim() == 2 else batch.task_ids[:, None].expand_as(targets)
    owners = ids[learnt]
    sums = torch.zeros(num_tasks, device=per_token.device, dtype=per_token.dtype).index_add(0, owners, per_token)
    counts = torch.bincount(owners, minlength=num_tasks)
    return sums / counts.clamp(min=1), counts


def _inputs(batch: TaskBatch) -> dict[str, Any]:
    """Select the model's inputs: packed rows are told apart by positions that restart with each row."""
    if batch.position_ids is None:
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    # transformers builds the mask from positions only where there is neither a mask nor a cache
    return {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
