"""Shared and private features held apart: a task discriminator on the shared, orthogonality to the private ones."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.checks import positive
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext, over_processes
from mtl_opt.models.sharing.parts.blocks import Blocks, check_blocks, chosen_blocks
from mtl_opt.models.sharing.parts.discriminator import TaskDiscriminator
from mtl_opt.models.sharing.parts.distances import factors, overlap
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import PrivateLora, SharedLora
from mtl_opt.models.sharing.parts.routing import Padding, rows_of_tasks


class SharedPrivateLora(nn.Module):
    """Add a shared adapter and that of the row's task: `s (B A + B_t A_t) x`.

    Args:
        shared: The shared adapter.
        private: The adapters of the tasks.
        discriminator: What judges the shared features `A x`; None for nothing.
        padding: Which tokens do not count there.
    """

    def __init__(
        self, shared: SharedLora, private: PrivateLora, discriminator: TaskDiscriminator | None, padding: Padding
    ) -> None:
        super().__init__()
        self.shared = shared
        self.private = private
        self.discriminator = discriminator
        self.padding = padding

    @override
    def forward(self, x: Tensor) -> Tensor:
        if self.discriminator is not None and self.training and torch.is_grad_enabled():
            segments = rows_of_tasks(x, len(self.private.tasks))
            # Detached: the layers below, private adapters among them, are not asked to hide the task.
            features = self.shared.lora_A(x.detach().to(self.shared.lora_A.weight.dtype))
            self.discriminator(features, segments, self.padding.kept(features.shape[:-1]))
        return self.shared(x) + self.private(x)

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:  # -> [2 rank, in]
        """Return the shared and the private adapter as one of twice the rank."""
        (a, b), (own_a, own_b) = self.shared.lora_of(task), self.private.lora_of(task)
        return torch.cat([a, own_a]), torch.cat([b, own_b], 1)


class Disentangled(AdapterSharing):
    r"""A shared and a private adapter in every layer, kept from learning the same.

    What is added is `s (B A + B_t A_t) x`, and two things keep the parts distinct:

    * **Adversary.** In chosen blocks a discriminator per layer reads the shared features `z = A x` of every token and
      learns the row's task; A gets the reversed gradient, `-λ ∇ CE(D(z), t)`, as a term of task t averaged over its
      tokens (padding does not count). The losses that are logged stay those of the tasks: the term is 0 in value.
    * **Orthogonality.** `μ_t ‖ΔW ΔW_tᵀ‖²` of the shared and the private update in every layer: for white inputs
      the product of the two parts' outputs. Only products of rank x rank are formed.

    Shared are A, B and the discriminators; A_t and B_t are private. A discriminator's own gradient (times λ) joins
    after the tasks' gradients are combined, so that its two-sided game is no conflict that a combiner sees.

    Cost: two adapters per layer, and in the chosen blocks one more product with A and `tasks² rank` operations per
    token.

    Departures from the paper: its features are sentence vectors of an LSTM, here those of the adapters, token by token;
    the reversed gradient stops at A, since what lies below also feeds the private part; z is scaled to mean square 1,
    so that a smaller A does not hide the task; orthogonality is of updates, not of the features of a batch. The mean
    over a task's tokens is that of each micro-batch and process, weighted by its label tokens. A task
    without rows in a step is not touched by the penalty either.

    Args:
        adversary: λ; 0 leaves the discriminators out.
        orthogonality: μ of every task that `tasks.NAME.penalty` does not name.
        layers: Where discriminators are: number of last blocks, or a list of block numbers from 0; default the last
            quarter, rounded up.

    Raises:
        ValueError: If an argument is not allowed.

    References:
        Liu, Qiu, Huang, `Adversarial Multi-task Learning for Text Classification <https://arxiv.org/abs/1704.05742>`_,
        ACL 2017, equations 9 to 13; Ganin and Lempitsky, `Unsupervised Domain Adaptation by Backpropagation
        <https://arxiv.org/abs/1409.7495>`_, ICML 2015 (gradient reversal).
    """

    summary: ClassVar[str] = (
        "a shared adapter, kept free of the task by an adversary, and a private one orthogonal to it"
    )
    paper = "Liu et al., Adversarial Multi-task Learning, ACL 2017, https://arxiv.org/abs/1704.05742"
    penalises: ClassVar[bool] = True

    def __init__(self, adversary: float = 0.05, orthogonality: float = 0.01, layers: Blocks = None) -> None:
        self.adversary = positive("adversary", adversary, zero=True)
        self.orthogonality = positive("orthogonality", orthogonality, zero=True)
        self.layers = check_blocks(layers)
        self.adapters: list[SharedPrivateLora] = []
        self.strengths: list[float] = []
        self.padding = Padding()
        self.judged: Sequence[int] = ()

    @override
    def apply(self, context: SharingContext) -> None:
        own = context.of_tasks("penalty")
        self.strengths = [positive("penalty", own.get(task, self.orthogonality), zero=True) for task in context.tasks]
        if self.adversary and len(context.tasks) > 1:
            self.judged = chosen_blocks(self.layers, context.layers[0].num_blocks)
            self.padding.watch(context.model)
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        judge = None
        if layer.block in self.judged:
            judge = TaskDiscriminator(context.lora.rank, len(context.tasks), self.adversary).to(layer.device)
        private = PrivateLora(layer, context.lora, context.tasks, context.of_tasks("dropout"))
        self.adapters.append(SharedPrivateLora(SharedLora(layer, context.lora), private, judge, self.padding))
        return self.adapters[-1]

    @override
    def penalty(self, step: int, total_steps: int) -> Tensor | None:
        present = range(len(self.strengths)) if self.present is None else self.present
        own = [task for task in present if self.strengths[task] > 0]
        terms = [self._overlap(adapter, own) for adapter in self.adapters] if own else []
        judges = [adapter.discriminator for adapter in self.adapters if adapter.discriminator is not None]
        if judges:
            sums = over_processes(torch.stack([judge.take_sums() for judge in judges]))
            terms += [judge.own_term(part) for judge, part in zip(judges, sums, strict=True)]
        return sum(terms[1:], start=terms[0]) if terms else None

    def _overlap(self, adapter: SharedPrivateLora, tasks: Sequence[int]) -> Tensor:
        """Compute the orthogonality penalty of one layer."""
        a, b = factors([adapter.private.lora_of(task) for task in tasks])
        strengths = torch.tensor([self.strengths[task] for task in tasks], dtype=a.dtype, device=a.device)
        return overlap(adapter.shared.lora_of(0), a, b, strengths)
