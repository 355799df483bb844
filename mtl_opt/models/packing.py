"""Whether a model keeps packed rows apart: tried on the model itself, since what is written about it may be wrong."""

from typing import Any

import torch

from mtl_opt.batch import task_rows
from mtl_opt.errors import InputError

LENGTHS = (5, 3, 4)
"""Rows that are tried, and what is left over behind them."""


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
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = (torch.arange(sum(LENGTHS), device=device) * 7 + 3) % vocabulary
    positions = torch.cat([torch.arange(length, device=device) for length in LENGTHS])
    try:
        with task_rows(torch.zeros_like(ids)[None]):  # whose rows they are is another question
            packed = model(input_ids=ids[None], position_ids=positions[None], use_cache=False).logits[0]
        with task_rows(torch.zeros_like(ids)[:1]):
            alone = torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in ids.split(LENGTHS)])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise InputError(f"`packing: true`: {_name(model)} takes no positions for packed rows ({reason}).") from error
    finally:
        model.train(was_training)
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
