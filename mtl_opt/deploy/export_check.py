"""Check of an export: a merged model must give the outputs of the run it came from, on a few tokens."""

from typing import Any

import torch
from torch import Tensor

from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import MultiTaskModel, decoder_inputs

TOLERANCE = 1e-4
"""Largest difference of two outputs in float32, as a share of the largest output."""

COARSE = 0.1
"""The same where the base runs in half precision only."""

LENGTH = 8
"""Tokens that are compared."""


def exact(model: Any) -> Any:
    """Convert a model to float32, in which a wrong merge can be told from rounding; a quantised one stays."""
    quantised = any(parameter.dtype in {torch.int8, torch.uint8} for parameter in model.parameters())
    return model if quantised else model.float()


@torch.no_grad()
def outputs_of(model: Any, task: int = 0, text: bool = True) -> Tensor:  # -> [1, seq, outputs]
    """Compute the logits of a few tokens, or the hidden states of a task whose head gives no text."""
    base = model.base if isinstance(model, MultiTaskModel) else model
    vocabulary, device = base.get_input_embeddings().num_embeddings, next(model.parameters()).device
    tokens = torch.arange(3, 3 + LENGTH, device=device)[None] % vocabulary
    ids, mask = torch.tensor([task], device=device), torch.ones_like(tokens)
    with task_rows(ids):
        if not text:
            heads = MultiTaskModel(model, {}) if not isinstance(model, MultiTaskModel) else model
            return heads.hidden(TaskBatch(tokens, mask, tokens, ids)).float().cpu()
        if isinstance(model, MultiTaskModel):
            with model.own_outputs():
                return model.backbone(input_ids=tokens, attention_mask=mask).logits.float().cpu()
        more = decoder_inputs(model, tokens)
        return model(input_ids=tokens, attention_mask=mask, **more).logits.float().cpu()


class SameAnswers:
    """Keep the outputs of a run for a task, and compare a merged model with them.

    Args:
        whole: The model of the run, from `exact`.
        task: Index of the task.
    """

    def __init__(self, whole: Any, task: int) -> None:
        self.name = whole.tasks[task] if hasattr(whole, "tasks") else ""
        self.text = not isinstance(whole, MultiTaskModel) or whole.head_at(task).reads == "text"
        self.coarse = any(p.is_floating_point() and p.element_size() < 4 for p in whole.parameters())
        self.outputs = outputs_of(whole, task, self.text)

    def check(self, model: Any) -> None:
        """Raise an `InputError` if a merged model gives other outputs than the run."""
        found = outputs_of(model.eval(), text=self.text)
        largest = float(self.outputs.abs().max())
        difference = float((self.outputs - found).abs().max()) if self.outputs.shape == found.shape else float("inf")
        if not difference <= (COARSE if self.coarse else TOLERANCE) * largest:
            of_task = f" of task `{self.name}`" if self.name else ""
            raise InputError(
                f"The merged model{of_task} does not answer as the run does (outputs up to {largest:.3g} differ by "
                f"{difference:.2g}), so nothing was exported; `mtl-opt generate` runs it from its own files."
            )
