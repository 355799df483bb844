"""Wrappers: combiners that change when or how strongly another combiner acts."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.checks import rows_of
from mtl_opt.combiners.common.arguments import count_of
from mtl_opt.combiners.common.blocks import BlockWeights, blocks_of, like_blocks
from mtl_opt.combiners.common.solvers import nearest_semidefinite, precision_of


class Wrapper(Combiner):
    """Hold another combiner and answer for what it needs; its state is saved inside the wrapper's.

    Args:
        combiner: What is wrapped.
    """

    scale: ClassVar[str] = "that of the wrapped combiner"

    def __init__(self, combiner: Combiner) -> None:
        super().__init__()
        self.inner = combiner
        self.requires = combiner.requires
        self.over = combiner.over
        self.observes = combiner.observes
        self.by = combiner.by
        self.window = combiner.window

    def allocate(self, num_tasks: int) -> None:
        """Give the wrapped combiner the same tasks."""
        assert self.tasks is not None
        assert len(self.tasks) == num_tasks
        self.inner.bind(self.tasks)

    def observe(self, losses: Tensor, *, tasks: Sequence[int] | None = None) -> None:  # [tasks]
        """Hand the losses measured after the step to the wrapped combiner."""
        self.inner.observe(losses, tasks=tasks)


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
        rows = rows_of(jacobian)
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
        blocks = blocks_of(gramian, self.by, "NormMatched")
        steps = {name: self.enter(block, losses, tasks) for name, block in blocks.items()}
        first = next(iter(steps.values()))
        found: Any = self.inner.weights(gramian if self.by is None else blocks, losses, tasks=first.tasks)  # type: ignore[arg-type]
        wanted = squared = rounding = 0.0
        for name, step in steps.items():
            weights = (found if self.by is None else found[name]).to("cpu", torch.float64)
            precision = precision_of(step.like, len(step.tasks))
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


class Every(Wrapper):
    """Ask a combiner for new weights once in `k` steps and use them until then.

    Saves the cost of expensive weights, and steadies them. Between, the wrapped combiner sees nothing. Around
    `Scoped` the weights of all blocks are kept.

    Scale: that of the wrapped combiner.

    Undefined: where a task is present that has no weight yet; the combiner is asked at once. A task that was absent
    when the weights were made keeps the weight it had before.

    Cost: a k-th of that of the combiner.

    Departures: none.

    Args:
        combiner: The combiner that is asked.
        k: Steps between two questions, at least 1.

    Raises:
        ValueError: If the combiner has no weights, or `k` is no whole number of at least 1.

    References:
        Navon et al., `Multi-Task Learning as a Bargaining Game <https://arxiv.org/abs/2202.01017>`_, ICML 2022:
        their code updates its weights every few steps.

    Examples:
        >>> from mtl_opt.combiners.pcgrad import PCGrad
        >>> combiner = Every(PCGrad(), k=2)
        >>> combiner.weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
        >>> combiner.weights(torch.eye(2))
        tensor([1.5000, 1.5000])
        >>> combiner.weights(torch.eye(2))
        tensor([1., 1.])
    """

    left: Tensor  # []

    def __init__(self, combiner: Combiner, k: int) -> None:
        super().__init__(combiner)
        _need_weights(combiner, "Every")
        self.k = count_of("k", k, 1)

    @override
    def allocate(self, num_tasks: int) -> None:
        super().allocate(num_tasks)
        self.kept = BlockWeights(num_tasks)
        self.register_buffer("left", torch.tensor(0))

    @override
    def weights(
        self,
        gramian: Tensor | Mapping[str, Tensor] | None,
        losses: Tensor | None = None,
        *,
        tasks: Sequence[int] | None = None,
    ) -> Any:  # a Tensor, or one per block around Scoped
        blocks = blocks_of(gramian, self.by, "Every")
        steps = [self.enter(block, losses, tasks) for block in blocks.values()]
        present = steps[0].tasks
        self.kept.split(list(blocks))
        if int(self.left) == 0 or bool(self.kept.value[present].isnan().any()):
            asked = gramian if self.by is None else blocks
            found = self.inner.weights(asked, losses, tasks=present)  # type: ignore[arg-type]
            self.kept.value[present] = self.kept.stacked(found)
            self.left.fill_(self.k)
        self.left -= 1
        return self.kept.per_block(present, gramian, steps[0].like)


class Smoothed(Wrapper):
    r"""Average a combiner's weights over the steps.

    $$ \bar w_t = \beta\, \bar w_{t-1} + (1 - \beta)\, w_t, \qquad \bar w_1 = w_1 $$

    This is CR-MOGM, the correction under which stochastic multi-objective methods converge. Around `Scoped` every
    block has its own averages.

    Scale: that of the wrapped combiner.

    Undefined: before a task's first step; its average starts with its first weight. An absent task keeps its average.

    Cost: none.

    Departures: the share of the past is constant, as in TorchJD; whether the paper changes it with the steps was not
    verified.

    Args:
        combiner: The combiner whose weights are averaged.
        beta: Share of the past, at least 0, below 1.

    Raises:
        ValueError: If the combiner has no weights, or `beta` is out of range.

    References:
        Zhou, Zhang, Jiang, Zhong, Gu, Zhu, `On the Convergence of Stochastic Multi-Objective Gradient Manipulation
        and Beyond <https://papers.neurips.cc/paper_files/paper/2022/hash/f91bd64a3620aad8e70a27ad9cb3ca57-Abstract-Conference.html>`_,
        NeurIPS 2022.

    Examples:
        >>> from mtl_opt.combiners.pcgrad import PCGrad
        >>> combiner = Smoothed(PCGrad(), beta=0.5)
        >>> combiner.weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000])
        >>> combiner.weights(torch.eye(2))
        tensor([1.2500, 1.2500])
    """

    def __init__(self, combiner: Combiner, beta: float = 0.9) -> None:
        super().__init__(combiner)
        _need_weights(combiner, "Smoothed")
        if not 0 <= beta < 1:
            raise ValueError(f"`beta` must be at least 0 and below 1, got {beta}.")
        self.beta = float(beta)

    @override
    def allocate(self, num_tasks: int) -> None:
        super().allocate(num_tasks)
        self.averaged = BlockWeights(num_tasks)

    @override
    def weights(
        self,
        gramian: Tensor | Mapping[str, Tensor] | None,
        losses: Tensor | None = None,
        *,
        tasks: Sequence[int] | None = None,
    ) -> Any:  # a Tensor, or one per block around Scoped
        blocks = blocks_of(gramian, self.by, "Smoothed")
        step = self.enter(next(iter(blocks.values())), losses, tasks)
        self.averaged.split(list(blocks))
        asked = gramian if self.by is None else blocks
        found = self.averaged.stacked(self.inner.weights(asked, losses, tasks=step.tasks))  # type: ignore[arg-type]
        past = self.averaged.value[step.tasks]
        averaged = torch.where(past.isnan(), found, self.beta * past + (1 - self.beta) * found)
        self.averaged.value[step.tasks] = averaged
        return self.averaged.per_block(step.tasks, gramian, step.like)


def _need_weights(combiner: Combiner, wrapper: str) -> None:
    """Refuse a combiner that has no weights."""
    if combiner.requires == "jacobian":
        raise ValueError(f"`{wrapper}` must wrap a combiner with weights; `{type(combiner).__name__}` has none.")
