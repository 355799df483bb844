"""A wrapper that runs one copy of a combiner per block of parameters."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.blocks import check_same_blocks, gramians_by_block, like_blocks
from mtl_opt.combiners.wrappers.base import Wrapper

NEEDED = {
    "losses": "only losses, which are the same for every block",
    "halves": "two samples of the rows",
    "window": "the Gramian of a window",
    "jacobian": "the rows themselves",
}
"""The requirement of a combiner that cannot be scoped, in words."""


class Scoped(Wrapper):
    """Run one copy of a combiner per block of parameters, each on the block's own Gramian and with its own state.

    Conflicts differ from layer to layer: a block in which two tasks agree is left alone while another is projected.
    `weights` takes `{block: Gramian}` and returns `{block: weights}`, as `TaskGradients.gramian(by=...)` gives and
    `TaskGradients.write` takes them. There is no `forward`: a Jacobian does not say where its blocks end. Every copy
    has a seed of its own. PCGrad per tensor of LoRA adapters is what Ortho-LoRA does.

    Scale: that of the wrapped combiner, block by block. A method whose update has a fixed norm has it in every block.

    Undefined: where the wrapped combiner is, block by block.

    Cost: that of the combiner once per block, of which a model has 50 to 340.

    Departures: none; every copy computes what the method says on its block.

    Args:
        combiner: A combiner that requires a Gramian; its copies start from its present state.
        by: The blocks: "layer", or "tensor" for every parameter tensor.

    Raises:
        ValueError: If the combiner does not require a Gramian, or `by` is unknown.

    Examples:
        >>> import torch
        >>> from mtl_opt.combiners.pcgrad import PCGrad
        >>> combiner = Scoped(PCGrad(), by="tensor")
        >>> combiner.weights({"a": torch.eye(2), "b": torch.tensor([[1.0, -0.5], [-0.5, 1.0]])})
        {'a': tensor([1., 1.]), 'b': tensor([1.5000, 1.5000])}
    """

    def __init__(self, combiner: Combiner, by: Literal["layer", "tensor"] = "layer") -> None:
        super().__init__(combiner)
        if combiner.requires != "gramian" or combiner.by is not None:
            what = "blocks already" if combiner.by is not None else NEEDED[combiner.requires]
            raise ValueError(
                f"`Scoped` must wrap a combiner that requires one Gramian; `{type(combiner).__name__}` requires {what}."
            )
        if by not in {"layer", "tensor"}:
            raise ValueError(f"`by` must be 'layer' or 'tensor', got {by!r}.")
        self.by = by
        self.over = "all"
        self.blocks: list[str] = []
        self.copies = nn.ModuleList()
        self.register_load_state_dict_pre_hook(_copy_for_checkpoint)

    @override
    def allocate(self, num_tasks: int) -> None:
        super().allocate(num_tasks)
        self.split([])

    @override
    def weights(  # type: ignore[override]  # one entry per block in place of one tensor
        self,
        gramian: Mapping[str, Tensor],
        losses: Tensor | None = None,
        *,
        tasks: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        blocks = gramians_by_block(gramian, self.by, "Scoped")
        present = [self.enter(block, losses, tasks).tasks for block in blocks.values()][-1]
        if not self.blocks:
            self.split(list(gramian))
        check_same_blocks(list(gramian), self.blocks)
        copies: dict[str, Combiner] = dict(zip(self.blocks, self.copies, strict=True))  # type: ignore[arg-type]
        found = {name: copies[name].weights(block, losses, tasks=present) for name, block in blocks.items()}
        return like_blocks(found, gramian)

    def split(self, blocks: Sequence[str]) -> None:
        """Create one copy of the combiner per block, each with a seed of its own."""
        self.blocks = list(blocks)
        self.copies = nn.ModuleList()
        for index in range(len(blocks)):
            twin = copy.deepcopy(self.inner)
            for part in twin.modules():
                if isinstance(part, Combiner):  # blocks must not all draw the same random numbers
                    part.seed += index
                    part.generator.manual_seed(part.seed)
            self.copies.append(twin)

    @override
    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "blocks": list(self.blocks)}


def _copy_for_checkpoint(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Create the copies a checkpoint holds before their state is copied."""
    assert isinstance(module, Scoped)
    extra = state.get(f"{prefix}_extra_state")
    if extra is not None:
        module.split(extra["blocks"])
