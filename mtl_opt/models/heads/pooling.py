"""From the hidden states of a row's tokens to one vector per row."""

from collections.abc import Callable

import torch
from torch import Tensor


def first(hidden: Tensor, mask: Tensor) -> Tensor:  # [rows, seq, dim], [rows, seq] -> [rows, dim]
    """Take the first token that is no padding: `[CLS]` of an encoder."""
    return _at(hidden, mask.long().argmax(1))


def mean(hidden: Tensor, mask: Tensor) -> Tensor:  # [rows, seq, dim], [rows, seq] -> [rows, dim]
    """Average over the tokens that are no padding."""
    kept = mask.to(hidden).unsqueeze(-1)
    # not 0 · hidden: what padding holds may be infinite in half precision
    return hidden.masked_fill(kept == 0, 0).sum(1) / kept.sum(1).clamp(min=1)


def last(hidden: Tensor, mask: Tensor) -> Tensor:  # [rows, seq, dim], [rows, seq] -> [rows, dim]
    """Take the last token that is no padding: the only one of a causal model that has seen the whole row."""
    return _at(hidden, mask.shape[1] - 1 - mask.long().flip(1).argmax(1))


def _at(hidden: Tensor, places: Tensor) -> Tensor:  # [rows, seq, dim], [rows] -> [rows, dim]
    """Take one token of every row."""
    return hidden[torch.arange(len(hidden), device=hidden.device), places]


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cls": first, "mean": mean, "last": last}
"""Poolings by the name of `pooling`."""
