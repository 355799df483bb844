"""Wrappers: combiners that change when or how strongly another combiner acts."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.combiners.base import Combiner, rows_of
from mtl_opt.combiners.losses import count_of
from mtl_opt.combiners.solvers import precision_of


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

    def allocate(self, num_tasks: int) -> None:
        """Give the wrapped combiner the same tasks.

        Args:
            num_tasks: Number of bound tasks.
        """
        assert self.tasks is not None
        assert len(self.tasks) == num_tasks
        self.inner.bind(self.tasks)

    def observe(self, losses: Tensor, *, tasks: Sequence[int] | None = None) -> None:  # [tasks]
        """Hand the losses measured after the step to the wrapped combiner.

        Args:
            losses: One loss per present task. `[tasks]`
            tasks: Their indices among the bound names; None: all of them, in order.
        """
        self.inner.observe(losses, tasks=tasks)


class NormMatched(Wrapper):
    r"""Rescale the update of a combiner to the norm of the mean gradient, so that only its direction is compared.

    $$ w \leftarrow \frac{\sqrt{\mathbf 1^\top G \mathbf 1} / m}{\sqrt{w^\top G w}}\, w $$

    Put it outermost. An update that is 0 (up to rounding) has no direction and stays as it is. The norms are taken
    over the layers whose Gramian the wrapped combiner asks for: give GradNorm `layers="all"` to match the whole
    update. Around `Scoped` all blocks are rescaled by one factor. A combiner without weights is rescaled in
    `forward`. Requires a Gramian even where the wrapped combiner requires only losses. Cost: none.

    Args:
        combiner: The combiner whose update is rescaled.

    Examples:
        >>> from mtl_opt.combiners.sum import Sum
        >>> NormMatched(Sum())(torch.tensor([[3.0, 4.0], [3.0, 4.0]]))
        tensor([3., 4.])
    """

    scale: ClassVar[str] = "norm of the mean gradient"

    def __init__(self, combiner: Combiner) -> None:
        super().__init__(combiner)
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
        blocks = gramian if isinstance(gramian, Mapping) else {"": gramian}
        found: Any = None
        wanted = squared = rounding = 0.0
        for name, block in blocks.items():
            step = self.enter(block, losses, tasks)
            if found is None:
                found = self.inner.weights(gramian, losses, tasks=step.tasks)  # type: ignore[arg-type]
            weights = (found[name] if isinstance(gramian, Mapping) else found).to("cpu", torch.float64)
            wanted += float(step.gramian.sum()) / len(step.tasks) ** 2
            squared += float(weights @ step.gramian @ weights)
            length = float(weights.abs() @ step.gramian.diagonal().sqrt())
            rounding += precision_of(step.like, len(step.tasks)) * length**2
        factor = (max(wanted, 0.0) / squared) ** 0.5 if squared > rounding else 1.0
        return {name: w * factor for name, w in found.items()} if isinstance(gramian, Mapping) else found * factor


class Every(Wrapper):
    """Ask a combiner for new weights once in `k` steps and use them until then.

    Saves the cost of expensive weights, and steadies them. A task that was absent when the weights were made keeps
    the weight it had before; one that never had any makes the combiner be asked at once. Between, the wrapped
    combiner sees nothing.

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

    kept: Tensor  # [tasks], NaN before a task's first
    left: Tensor  # []

    def __init__(self, combiner: Combiner, k: int) -> None:
        super().__init__(combiner)
        _need_one_weight_per_task(combiner, "Every")
        self.k = count_of("k", k, 1)

    @override
    def allocate(self, num_tasks: int) -> None:
        super().allocate(num_tasks)
        self.register_buffer("kept", torch.full((num_tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("left", torch.tensor(0))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        if int(self.left) == 0 or bool(self.kept[step.tasks].isnan().any()):
            found = self.inner.weights(gramian, losses, tasks=step.tasks)
            self.kept[step.tasks] = found.to(self.kept)
            self.left.fill_(self.k)
        self.left -= 1
        return step.leave(self.kept[step.tasks])


class Smoothed(Wrapper):
    r"""Average a combiner's weights over the steps.

    $$ \bar w_t = \beta\, \bar w_{t-1} + (1 - \beta)\, w_t, \qquad \bar w_1 = w_1 $$

    This is CR-MOGM, the correction under which stochastic multi-objective methods converge. An absent task keeps its
    average; a late one starts with its first weight.

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

    averaged: Tensor  # [tasks], NaN before a task's first

    def __init__(self, combiner: Combiner, beta: float = 0.9) -> None:
        super().__init__(combiner)
        _need_one_weight_per_task(combiner, "Smoothed")
        if not 0 <= beta < 1:
            raise ValueError(f"`beta` must be at least 0 and below 1, got {beta}.")
        self.beta = float(beta)

    @override
    def allocate(self, num_tasks: int) -> None:
        super().allocate(num_tasks)
        self.register_buffer("averaged", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        found = self.inner.weights(gramian, losses, tasks=step.tasks).to(self.averaged)
        past = self.averaged[step.tasks]
        self.averaged[step.tasks] = torch.where(past.isnan(), found, self.beta * past + (1 - self.beta) * found)
        return step.leave(self.averaged[step.tasks])


def _need_one_weight_per_task(combiner: Combiner, wrapper: str) -> None:
    """Refuse a combiner whose answer is no vector of weights."""
    name = type(combiner).__name__
    if combiner.requires == "jacobian":
        raise ValueError(f"`{wrapper}` must wrap a combiner with weights; `{name}` has none.")
    if combiner.by is not None:
        raise ValueError(f"`{wrapper}` must be inside `Scoped`, not around it: Scoped({wrapper}(...)).")
