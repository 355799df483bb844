"""Parameters of one task alone (heads, private adapters): each gets its own task's gradient and nothing else."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.shards import unsharded


class PrivateGradients:
    """Manage the `.grad` of every task's private parameters.

    Args:
        model: The model, asked for `task_parameters()` where `private` is None.
        tasks: Names of the tasks.
        private: Parameters of one task alone, by task.

    Raises:
        ValueError: If `private` names an unknown task, or gives a parameter to two tasks.
    """

    def __init__(
        self, model: nn.Module, tasks: Sequence[str], private: Mapping[str, Sequence[nn.Parameter]] | None
    ) -> None:
        if private is None:
            own = getattr(model, "task_parameters", None)
            found = own() if own is not None else {}
            private = found if isinstance(found, Mapping) else {}  # a model may have a method of this name
        unknown = sorted(set(private) - set(tasks))
        if unknown:
            raise ValueError(f"`private` names unknown tasks {unknown}; tasks are {list(tasks)}.")
        self.groups = [[p for p in private.get(task, ()) if p.requires_grad] for task in tasks]
        owners: dict[int, str] = {}
        for task, group in zip(tasks, self.groups, strict=True):
            for parameter in group:
                if owners.setdefault(id(parameter), task) != task:
                    raise ValueError(f"`private` gives a parameter to `{owners[id(parameter)]}` and to `{task}`.")
        self._own: list[list[Tensor | None]] = []  # gradients of the closed step, by task
        self._penalties: list[tuple[nn.Parameter, Tensor]] = []

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All private parameters, in task order."""
        return [p for group in self.groups for p in group]

    def sum_over(self, processes: Processes, present: Sequence[int]) -> None:
        """Sum the gradients over the processes in one message; a flag per parameter tells who had none."""
        wanted = [p for task in present for p in self.groups[task] if not hasattr(p, "to_local")]  # FSDP2 has summed
        if processes.world == 1 or not wanted:
            return
        used = torch.tensor([float(p.grad is not None) for p in wanted], device=wanted[0].device)
        dtype = torch.promote_types(wanted[0].dtype, torch.float32)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]
        message = processes.sum(torch.cat([used.to(dtype), *(part.flatten().to(dtype) for part in parts)]))
        found = message[len(wanted) :].split([p.numel() for p in wanted])
        for parameter, count, gradient in zip(wanted, message[: len(wanted)].tolist(), found, strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if count else None

    def squared_norms(self) -> Tensor:  # -> [tasks]
        """Compute the squared norms of the closed step's gradients, before weights and penalties."""
        found = torch.zeros(len(self.groups))
        for task, own in enumerate(self._own):
            for gradient in own:
                if gradient is not None:
                    found[task] += unsharded(gradient.float().square().sum()).cpu()
        return found

    def divide(self, totals: Tensor, present: Sequence[int]) -> None:  # [tasks]
        """Turn counts·gradients into gradients; those of absent tasks become None."""
        for task, group in enumerate(self.groups):
            for parameter in group:
                if task in present and parameter.grad is not None:  # not in place: autograd may give one tensor to two
                    parameter.grad = parameter.grad / totals[task].to(parameter.grad)
                else:
                    parameter.grad = None  # not zeros: weight decay and momentum must not move an absent task's head
        self._own = [[parameter.grad for parameter in group] for group in self.groups]

    def write_grad(self, weights: Tensor | None) -> None:  # [tasks]
        """Set every `.grad` to the own task's gradient, scaled where asked, and add the penalties."""
        for task, (group, own) in enumerate(zip(self.groups, self._own, strict=True)):
            for parameter, gradient in zip(group, own, strict=True):
                factor = 1 if weights is None or gradient is None else weights[task].to(gradient)
                parameter.grad = None if gradient is None else gradient * factor
        for parameter, gradient in self._penalties:
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient

    def add_penalty(self, gradients: Sequence[Tensor | None]) -> None:
        """Store the gradient of a penalty until the tasks' gradients are final."""
        found = zip(self.parameters, gradients, strict=True)
        self._penalties += [(parameter, gradient) for parameter, gradient in found if gradient is not None]

    def clip(self, limit: float) -> None:
        """Clip every task's private gradients apart."""
        for group in self.groups:
            nn.utils.clip_grad_norm_(group, limit)

    def zero(self) -> None:
        """Set every `.grad` to None."""
        self._own, self._penalties = [], []
        for parameter in self.parameters:
            parameter.grad = None
