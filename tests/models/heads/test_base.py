"""What heads have in common: poolings."""

import pytest
import torch

from mtl_opt.models.heads.base import POOLINGS


@pytest.mark.parametrize("side", ["right", "left"])
def test_poolings_do_not_see_padding(side):
    hidden = torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    if side == "left":
        mask = mask.flip(1)
    kept = [row[m.bool()] for row, m in zip(hidden, mask, strict=True)]
    hidden = hidden.masked_fill(mask[..., None] == 0, torch.inf)
    wanted = {"cls": [r[0] for r in kept], "mean": [r.mean(0) for r in kept], "last": [r[-1] for r in kept]}
    for name, rows in wanted.items():
        torch.testing.assert_close(POOLINGS[name](3)(hidden, mask), torch.stack(rows))
    attention = POOLINGS["task_attention"](3)
    alone = torch.cat([attention(row[None], torch.ones(1, len(row))) for row in kept])
    torch.testing.assert_close(attention(hidden, mask), alone)
