"""One Gramian, or one per block of parameters: what wrappers need to treat both alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_opt.combiners.common.row_memory import match_saved_width

WHOLE = ""
"""Name of the only block where there is one Gramian for all parameters."""


def gramians_by_block(
    gramian: Tensor | Mapping[str, Tensor] | None,
    by: str | None,
    wrapper: str,
) -> dict[str, Tensor | None]:
    """Return the input of `weights` as a mapping of blocks, moved to the CPU in one transfer."""
    if by is None:
        return {WHOLE: gramian}  # type: ignore[dict-item]  # `enter` refuses a mapping
    if not isinstance(gramian, Mapping) or not gramian:
        raise ValueError(f"`{wrapper}` needs a mapping of blocks to Gramians, got {type(gramian).__name__}.")
    if len({block.shape for block in gramian.values()}) > 1:
        raise ValueError(f"`gramian` must have the same shape in every block for `{wrapper}`.")
    return dict(zip(gramian, torch.stack(list(gramian.values())).cpu(), strict=True))


def like_blocks(
    found: Mapping[str, Tensor],  # [tasks]
    gramian: Mapping[str, Tensor],  # [tasks, tasks]
) -> dict[str, Tensor]:  # [tasks]
    """Move the weights of all blocks to the dtype and device of the Gramians, in one transfer."""
    like = next(iter(gramian.values()))
    return dict(zip(found, torch.stack(list(found.values())).to(like), strict=True))


class BlockWeights(nn.Module):
    """Remember one number per task and block, NaN before a task's first.

    It starts without blocks, because `bind` knows the tasks but not the blocks, and takes the shape of a checkpoint.

    Args:
        num_tasks: Number of bound tasks.
    """

    value: Tensor  # [tasks, blocks]

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self.register_buffer("value", torch.zeros(num_tasks, 0, dtype=torch.float64))
        self.register_load_state_dict_pre_hook(match_saved_width)

    def split(self, blocks: Sequence[str]) -> None:
        """Name the blocks in the first step; later ones must have the same."""
        if not self.blocks:
            self.blocks = list(blocks)
            self.value = torch.full((len(self.value), len(blocks)), torch.nan, dtype=torch.float64)
        check_same_blocks(blocks, self.blocks)

    def stacked(self, weights: Tensor | Mapping[str, Tensor]) -> Tensor:  # [present, blocks]
        """Stack the weights of all blocks into one matrix."""
        by_block = weights if isinstance(weights, Mapping) else {WHOLE: weights}
        return torch.stack([by_block[name].to(self.value) for name in self.blocks], dim=1)

    def per_block(self, tasks: Sequence[int], gramian: Tensor | Mapping[str, Tensor] | None, like: Tensor) -> Any:
        """Return the remembered numbers in the form `weights` returns."""
        columns = self.value[list(tasks)].unbind(1)
        if not isinstance(gramian, Mapping):
            return columns[0].to(like)
        return like_blocks(dict(zip(self.blocks, columns, strict=True)), gramian)

    def get_extra_state(self) -> list[str]:
        """Return the names of the blocks."""
        return list(self.blocks)

    def set_extra_state(self, state: Sequence[str]) -> None:
        """Restore the names of the blocks."""
        self.blocks = list(state)


def check_same_blocks(blocks: Sequence[str], known: Sequence[str]) -> None:
    """Raise where the blocks are not those of earlier steps."""
    if set(blocks) != set(known):
        other = sorted(set(blocks) ^ set(known))
        raise ValueError(f"`gramian` must have the same blocks in every step, got a difference in {other[:3]}.")
