"""Updates of the norm of the mean gradient, so that methods differ by direction alone."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.blocks import gramians_by_block, like_blocks
from mtl_opt.combiners.common.solvers import nearest_semidefinite, relative_precision
from mtl_opt.combiners.inputs import detached_rows
from mtl_opt.combiners.wrappers.base import Wrapper


class NormMatched(Wrapper):
    r"""Rescale the update of a combiner to the norm of the mean gradient, so that only its direction is compared.

    $$ w \leftarrow \frac{\sqrt{\mathbf 1^\top G \mathbf 1} / m}{\sqrt{w^\top G w}}\, w $$

    Put it outermost. The norms are taken over the layers whose Gramian the wrapped combiner asks for: give GradNorm
    `layers="all"` to match the whole update. Around `Scoped` all blocks are rescaled by one factor; around `Denoised`
    the norms are those of the window: of the expected gradients. A combiner without weights is rescaled in `forward`.
    Requires a Gramian even where the wrapped combiner requires only losses.

    Scale: the norm of the mean gradient.

    Undefined: where the update is 0 (up to rounding) and has no direction; it stays as it is.

    Cost: none around weights; two more passes over the update where the combiner has none.

    Departures: there is no paper of this form; methods differ by scale, so that a learning rate tuned for one is
    wrong for another.

    Args:
        combiner: The combiner whose update is rescaled.

    Raises:
        ValueError: If the combiner requires halves: products of two samples are no norms.

    Examples:
        >>> from mtl_opt.combiners.sum import Sum
        >>> NormMatched(Sum())(torch.tensor([[3.0, 4.0], [3.0, 4.0]]))
        tensor([3., 4.])
    """

    scale: ClassVar[str] = "norm of the mean gradient"

    def __init__(self, combiner: Combiner) -> None:
        super().__init__(combiner)
        if combiner.requires == "halves":
            raise ValueError(
                f"`NormMatched` must wrap a combiner whose input shows norms; the two samples of "
                f"`{type(combiner).__name__}` do not."
            )
        if combiner.requires == "losses":
            self.requires = "gramian"

    @override
    def forward(self, jacobian: Tensor, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None) -> Tensor:
        if self.requires != "jacobian":
            return super().forward(jacobian, losses, tasks=tasks)
        rows = detached_rows(jacobian)
        combined = self.inner(rows, losses, tasks=tasks)
        norm = torch.linalg.vector_norm(combined)
        wanted = torch.linalg.vector_norm(rows.mean(0))
        factor = torch.where(norm > 0, wanted / norm.clamp(min=torch.finfo(norm.dtype).tiny), 1.0)
        return (combined * factor).to(jacobian.dtype)

    @override
    def weights(
        self,
        gramian: Tensor | Mapping[str, Tensor] | None,
        losses: Tensor | None = None,
        *,
        tasks: Sequence[int] | None = None,
    ) -> Any:  # a Tensor, or one per block around Scoped
        blocks = gramians_by_block(gramian, self.by, "NormMatched")
        steps = {name: self.enter(block, losses, tasks) for name, block in blocks.items()}
        first = next(iter(steps.values()))
        found = self.inner_weights(gramian, blocks, losses, first.tasks)
        # ‖mean gradient‖² = 1ᵀG1 / m² and ‖update‖² = wᵀGw, each summed over the blocks.
        wanted = squared = rounding = 0.0
        for name, step in steps.items():
            weights = (found if self.by is None else found[name]).to("cpu", torch.float64)
            precision = relative_precision(step.like, len(step.tasks))
            inner = step.gramian
            if self.requires == "window":  # an estimate, which can be indefinite
                inner = torch.from_numpy(nearest_semidefinite(inner.numpy(), precision))
            wanted += float(inner.sum()) / len(step.tasks) ** 2
            squared += float(weights @ inner @ weights)
            rounding += precision * float(weights.abs() @ inner.diagonal().sqrt()) ** 2
        factor = (max(wanted, 0.0) / squared) ** 0.5 if squared > rounding else 1.0
        if not isinstance(gramian, Mapping):
            return found * factor
        return like_blocks({name: w * factor for name, w in found.items()}, gramian)
