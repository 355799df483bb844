"""RotoGrad: rotations of the representation that turn the tasks' gradients towards each other."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.checks import at_least, positive
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext, over_processes
from mtl_opt.models.sharing.parts.last_hidden import representation
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import SharedLora
from mtl_opt.models.sharing.parts.rotation import Rotations

ROTATION = "task_rotation"
"""Name of the rotations in the module whose output they turn."""

LARGEST = 64
"""Most features that a block of a rotation turns by default."""


class RotoGrad(AdapterSharing):
    r"""One adapter for all tasks, and a rotation of the last hidden state for each: `logits = W R_t z`.

    The network is trained on the tasks' losses with the rotations held fixed. The rotations are trained on an objective
    of their own: with `g_t` the gradient of task t's loss with respect to the turned features, what reaches the network
    is `R_tᵀ g_t`, and R_t minimises

        1 - cos(R_tᵀ g_t, v),   v = mean over tasks of R_jᵀ g_j / ‖g_j‖, held fixed.

    `g_t` is caught in the one backward of the step (or in that of every task) and summed over the tokens of the step,
    so no second backward is needed. R_t is private to task t and orthogonal by construction, `exp(S - Sᵀ)`.

    **The representation** of a language model is its last hidden state `[rows, seq, hidden]` after the final norm; each
    token is turned alike. A rotation of the whole hidden size would cost `hidden²` per token and `hidden³` per step and
    task, so R_t is made of blocks on neighbouring features: every feature is turned, at a cost of `hidden · block` per
    token, `hidden · block²` per step and task, and `hidden (block - 1) / 2` private parameters per task. `block` equal
    to the hidden size is the paper's full rotation. For a fixed task the rotation merges into the output layer:
    `output_matrix_of(task)` gives R_t.

    Departures from the paper: each row belongs to one task, so that directions are compared between sums over rows, not
    on one row; rotations in blocks; the main optimizer trains them at a learning rate of their own, without weight
    decay (unless `tasks.NAME.weight_decay` names one); with `scale` the norms are those of the step before (the paper
    scales in the same step, which needs the gradients of all tasks before the first goes on). The output layer of a
    language model is frozen unless it has an adapter, so its heads do not follow the rotation: keep the rate low.

    Args:
        block: Features that a block turns, a divisor of the hidden size; default the largest one up to 64.
        learning_rate_factor: Learning rate of the rotations, as a share of the run's.
        burn_in: Steps before rotations begin to move.
        scale: Bring the tasks' gradients to one norm: with `n_t` the norm of task t's mean feature gradient and
            `n_t(0)` its first, to `Σ_t w_t n_t` where `w_t` is proportional to `n_t / n_t(0)`.

    Raises:
        ValueError: If an argument is not allowed.

    References:
        Javaloy and Valera, `RotoGrad: Gradient Homogenization in Multitask Learning
        <https://arxiv.org/abs/2103.02631>`_, ICLR 2022, algorithm 1.
    """

    summary: ClassVar[str] = "one adapter for all tasks; private rotations of the last hidden state align the gradients"
    paper = "Javaloy & Valera, RotoGrad, ICLR 2022, https://arxiv.org/abs/2103.02631"

    def __init__(
        self,
        block: int | None = None,
        learning_rate_factor: float = 0.1,
        burn_in: int = 20,
        scale: bool = False,
    ) -> None:
        if not isinstance(scale, bool):
            raise ValueError(f"`scale` must be true or false, got {scale!r}.")
        self.block = None if block is None else at_least("block", block, 2)
        self.learning_rate_factor = positive("learning_rate_factor", learning_rate_factor, zero=True)
        self.burn_in = at_least("burn_in", burn_in, 0)
        self.scale = scale
        self.rotations: Rotations | None = None

    @override
    def apply(self, context: SharingContext) -> None:
        base, dim = representation(context.model)
        block = self.block or max(size for size in range(1, min(dim, LARGEST) + 1) if dim % size == 0)
        if block < 2:
            raise ValueError(f"`block` must be given: no number from 2 to {LARGEST} divides {dim}, the hidden size.")
        if dim % block:
            raise ValueError(f"`block` must divide {dim}, the hidden size of the model, got {block}.")
        self.rotations = Rotations(dim, context.tasks, block, self.scale).to(context.layers[0].device)
        base.add_module(ROTATION, self.rotations)
        base.register_forward_hook(turn_output)
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return SharedLora(layer, context.lora)

    @override
    def penalty(self, step: int, total_steps: int) -> Tensor | None:
        assert self.rotations is not None
        seen = over_processes(self.rotations.take())
        sums, tokens = seen[:, :-1], seen[:, -1]
        if self.scale:
            self.rotations.balance(sums, tokens)
        present = [task for task, number in enumerate(tokens.tolist()) if number > 0]
        if step <= self.burn_in or len(present) < 2:
            return None
        return self.rotations.misalignment(sums, present)

    @override
    def optimizer_options(self) -> dict[int, dict[str, float]]:
        assert self.rotations is not None
        own = {"weight_decay": 0.0, "learning_rate_factor": self.learning_rate_factor}
        return {id(angles): own for angles in self.rotations.angles}

    @override
    def report(self) -> dict[str, float]:
        assert self.rotations is not None
        tasks = self.rotations.tasks
        with torch.no_grad():
            turned = self.rotations.matrices(range(len(tasks)))
            far = (turned - torch.eye(self.rotations.block, device=turned.device)).square().sum((1, 2, 3)).sqrt()
        return {f"rotation_{task}": float(value) for task, value in zip(tasks, far, strict=True)}


def turn_output(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001 - the signature of a hook
    """Turn the last hidden state that a module gives."""
    rotations = module.get_submodule(ROTATION)
    if isinstance(output, Tensor):
        return rotations(output)
    if isinstance(output, tuple):
        return (rotations(output[0]), *output[1:])
    output.last_hidden_state = rotations(output.last_hidden_state)
    return output
