"""A trial forward of a few tokens: an architecture that a way of sharing does not fit is refused before training."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.errors import InputError, first_line
from mtl_opt.models.encoder_decoder import decoder_inputs, is_encoder_decoder
from mtl_opt.models.heads.model import MultiTaskModel
from mtl_opt.models.precision import evaluation_mode
from mtl_opt.models.sharing.base import row_terms
from mtl_opt.models.sharing.parts.layers import AdaptedLinear
from mtl_opt.models.sharing.parts.routing import OtherRowsError

LENGTH = 5
"""Tokens of a row of the trial: another number than its two rows, so that a layer which gets other rows shows."""

LENGTHS = (5, 3, 4)
"""Rows that are tried, and what is left over behind them."""


def trial_ids(model: Any, num_tasks: int) -> Tensor:  # -> [rows]
    """Choose the tasks of the rows that `try_rows` reads.

    Args:
        model: The model of a run.
        num_tasks: Number of its tasks.

    Returns:
        The first and the last task. `[rows]`
    """
    return torch.tensor([0, num_tasks - 1], device=model.get_input_embeddings().weight.device)


def try_rows(model: Any, ids: Tensor) -> Tensor:  # [rows] -> [rows, seq, outputs]
    """Read a few tokens of two rows through a model, which is left as it was.

    Args:
        model: The model of a run.
        ids: Tasks of the rows, from `trial_ids`. `[rows]`

    Returns:
        Logits, or the hidden states that heads read. `[rows, seq, outputs]`

    A `ValueError` of a layer says that it got something else than the rows of the batch.
    """
    embedding = model.get_input_embeddings()
    numbers = torch.arange(len(ids) * LENGTH, device=embedding.weight.device)
    tokens = numbers.view(len(ids), LENGTH) % embedding.num_embeddings
    mask = torch.ones_like(tokens)
    try:
        with evaluation_mode(model), task_rows(ids):
            if isinstance(model, MultiTaskModel):
                return model.hidden(TaskBatch(tokens, mask, tokens, ids))
            return model(input_ids=tokens, attention_mask=mask, use_cache=False, **decoder_inputs(model, tokens)).logits
    finally:
        row_terms(model)  # taken here, so that none is left for the first step


@torch.no_grad()
def check_routing(model: Any, name: str) -> None:
    """Refuse an architecture whose adapters cannot tell whose rows they get.

    Args:
        model: A model with a way of sharing in it; one without is not run. It is left as it was.
        name: Name of the way of sharing, for the message.

    Raises:
        InputError: If an adapter that must know the tasks is called with something else than the rows of the batch.
    """
    if not hasattr(model, "sharing"):
        return
    base, entered = model.base if isinstance(model, MultiTaskModel) else model, list[str]()
    with ExitStack() as stack:
        for path, module in base.named_modules():
            if isinstance(module, AdaptedLinear):
                stack.enter_context(module.register_forward_pre_hook(_noting(path, entered)))
        try:
            try_rows(model, trial_ids(model, len(model.tasks)))
        except OtherRowsError as error:
            layer = entered[-1] if entered else "the model"
            raise InputError(
                f"`sharing: {name}`: `{type(base).__name__}` calls `{layer}` with something else than the rows of the "
                "batch, so that nobody knows there whose they are; name other layers in `lora_target`."
            ) from error


def _noting(path: str, entered: list[str]) -> Any:
    """Build a hook that records the path of the layer being called."""

    def note(module: nn.Module, inputs: Any) -> None:  # noqa: ARG001 - the signature of a hook
        entered.append(path)

    return note


@torch.no_grad()
def check_packing(model: Any) -> None:
    """Refuse a model in which a token of a packed row is touched by the rows beside it.

    A few tokens are run packed and, row by row, alone; both must answer the same. It depends on the model's code and
    on its attention: most models of transformers build the mask from positions that begin again, recurrent ones and
    models with a mask of their own do not.

    Args:
        model: A causal language model, where it will be trained.

    Raises:
        InputError: If rows are not kept apart.
    """
    if is_encoder_decoder(model):
        raise InputError(
            f"`packing: true`: {_name(model)} has an encoder, which reads whole rows; use `packing: false`."
        )
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = (torch.arange(sum(LENGTHS), device=device) * 7 + 3) % vocabulary
    positions = torch.cat([torch.arange(length, device=device) for length in LENGTHS])
    try:
        with evaluation_mode(model), task_rows(torch.zeros_like(ids)[None]):  # whose rows they are is another question
            packed = model(input_ids=ids[None], position_ids=positions[None], use_cache=False).logits[0]
        with evaluation_mode(model), task_rows(torch.zeros_like(ids)[:1]):
            alone = torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in ids.split(LENGTHS)])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"`packing: true`: {_name(model)} takes no positions for packed rows ({first_line(error)})."
        ) from error
    # An 8-bit base rounds a row's products otherwise when other rows hold outliers.
    rounded = packed.dtype in {torch.bfloat16, torch.float16} or any(p.dtype == torch.int8 for p in model.parameters())
    if float((packed - alone).abs().max()) > (0.05 if rounded else 1e-4) * float(alone.abs().max()):
        raise InputError(
            f"`packing: true`: {_name(model)} does not keep packed rows apart (a token's output depends on the rows "
            "before it); use `packing: false`."
        )


def _name(model: Any) -> str:
    """Name the model under its adapters."""
    return type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
