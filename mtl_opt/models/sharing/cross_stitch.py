"""Cross-stitch units: as many adapters as tasks, mixed for each task in proportions that are learnt."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mtl_opt.batch import current_task_rows
from mtl_opt.checks import positive
from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import low_rank_pair
from mtl_opt.models.sharing.parts.routing import parameters_by_task, rows_of_tasks


class StitchedLora(nn.Module):
    """As many adapters as tasks; a row of task t gets `s Σ_j α[t, j] B_j A_j x`.

    All adapters stand side by side in two linear layers of `tasks · rank` columns, with the proportions of the row's
    task between them.

    Args:
        layer: The layer it adds to.
        lora: Rank, scale and dropout of each adapter.
        tasks: Names of the tasks.
        own: What a task takes of its own adapter at the start; the others share the rest to 1 evenly.
    """

    def __init__(self, layer: LinearLayer, lora: LoraSettings, tasks: Sequence[str], own: float) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.rank = lora.rank
        self.lora_A, self.lora_B = low_rank_pair(layer, [lora.rank] * len(self.tasks), len(self.tasks) * lora.rank)
        rest = (1 - own) / max(1, len(self.tasks) - 1)
        start = torch.full((len(self.tasks),) * 2, rest, device=layer.device)
        start.fill_diagonal_(own if len(self.tasks) > 1 else 1.0)
        self.stitch = nn.ParameterList(nn.Parameter(row.clone()) for row in start)
        self.scaling = lora.scaling
        self.dropout = nn.Dropout(lora.dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        rows_of_tasks(x, len(self.tasks))  # says in one sentence what does not fit
        ids = current_task_rows()
        assert ids is not None
        z = self.lora_A(self.dropout(x.to(self.lora_A.weight.dtype)))
        shares = torch.stack(list(self.stitch)).repeat_interleave(self.rank, 1)[ids.to(x.device)]
        shares = shares.view(*ids.shape, *[1] * (z.dim() - 1 - ids.dim()), -1)
        return self.lora_B(z * shares.to(z.dtype)) * self.scaling

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private mixing proportions by task; the adapters are shared."""
        return parameters_by_task(self.tasks, self.stitch)

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:  # -> [tasks · rank, in]
        """Return all adapters side by side, in the proportions of a task."""
        shares = self.stitch[task].repeat_interleave(self.rank)
        return self.lora_A.weight, self.lora_B.weight * (shares * self.scaling)


class CrossStitch(AdapterSharing):
    """As many adapters as tasks in every layer, mixed by cross-stitch units `α` `[tasks, tasks]` that are learnt.

    What is added for a row of task t is `s Σ_j α[t, j] B_j A_j x`. All adapters are shared: rows of every task train
    every adapter, in proportion to the task's own shares. Line t of every unit is private to task t, as only its rows
    pass through it. There is one unit per adapted layer.

    Cost: an adapter of rank `tasks · rank` in every layer, for every row.

    Departures from the paper: there, each task has a whole network and a unit mixes the activations of all networks on
    the same input; here each row belongs to one task, so only the line of its task is computed, and adapters are mixed
    in place of layers.

    Args:
        own: α[t, t] at the start; the rest to 1 is spread evenly over the others. 1 starts from an adapter per task.

    Raises:
        ValueError: If `own` is not a share in [0, 1].

    References:
        Misra, Shrivastava, Gupta, Hebert, `Cross-Stitch Networks for Multi-Task Learning
        <https://arxiv.org/abs/1604.03539>`_, CVPR 2016; 0.9 is their start.
    """

    summary: ClassVar[str] = "as many adapters as tasks, all shared, mixed in private proportions that are learnt"
    paper = "Misra et al., Cross-Stitch Networks, CVPR 2016, https://arxiv.org/abs/1604.03539"

    def __init__(self, own: float = 0.9) -> None:
        self.own = positive("own", own, zero=True)
        if self.own > 1:
            raise ValueError(f"`own` must be a share from 0 to 1, got {own!r}.")
        self.adapters: list[StitchedLora] = []

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        self.adapters.append(StitchedLora(layer, context.lora, context.tasks, self.own))
        return self.adapters[-1]

    @override
    def report(self) -> dict[str, float]:
        units = torch.stack([torch.stack(list(adapter.stitch)).detach() for adapter in self.adapters]).mean(0)
        tasks = self.adapters[0].tasks
        return {f"stitch_{a}_{b}": float(units[i, j]) for i, a in enumerate(tasks) for j, b in enumerate(tasks)}
