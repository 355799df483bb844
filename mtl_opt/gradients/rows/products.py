"""The products on the hot path: `J Jᵀ`, `wᵀ J` and `J d`, each in one pass over the rows."""

import torch
from torch import Tensor

PIECE = 4096
"""Columns of one product of a Gramian."""

CHUNK = 2**20
"""Columns converted at a time where rows and parameters differ in precision."""


def gramian_of(
    rows: Tensor,  # [tasks, columns]
) -> Tensor:  # [tasks, tasks]
    """Compute `J Jᵀ` piece by piece: sums of short products round less, and threads share the pieces."""
    # The sum over blocks of columns, Σ_k J_k J_kᵀ, is the Gramian whatever the blocks.
    if rows.dtype in {torch.bfloat16, torch.float16}:  # in float32, without a copy of all rows
        parts = rows.split(CHUNK, dim=1)
        return torch.stack([gramian_of(part.float()) for part in parts]).sum(0)
    whole = rows.shape[1] // PIECE
    pieces = rows[:, : whole * PIECE].view(len(rows), whole, PIECE).transpose(0, 1)
    rest = rows[:, whole * PIECE :]
    return (pieces @ pieces.mT).sum(0) + rest @ rest.T


def weighted_sum(
    rows: Tensor,  # [tasks, columns]
    weights: Tensor,  # [tasks]
    out: Tensor,  # [columns]
) -> None:
    """Write `wᵀ J`, in the precision and on the device of `out`."""
    if rows.dtype == out.dtype and rows.device == out.device:
        torch.mv(rows.T, weights.to(rows), out=out)
        return
    for part, target in zip(rows.split(CHUNK, dim=1), out.split(CHUNK), strict=True):
        target.copy_(weights.to(rows.device, out.dtype) @ part.to(out.dtype))


def row_products(
    rows: Tensor,  # [tasks, columns]
    vector: Tensor,  # [columns]
) -> Tensor:  # [tasks]
    """Compute `J d`, in the precision and on the device of `d`."""
    if rows.dtype == vector.dtype and rows.device == vector.device:
        return rows @ vector
    parts = zip(rows.split(CHUNK, dim=1), vector.split(CHUNK), strict=True)
    return torch.stack([part.to(vector.device, vector.dtype) @ piece for part, piece in parts]).sum(0)
