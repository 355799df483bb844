"""A linear layer per task, in one product where all tasks have equally many rows."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.models.sharing.parts.routing import by_task, parameters_by_task, rows_of_tasks


class PrivateLinear(nn.Module):
    """Send each row through the linear layer of its task: `y = W_t x + b_t`.

    Args:
        in_features: Features of an input.
        out_features: Features of an output.
        tasks: Names of the tasks.
        zero: Begin with zeros; else with what `nn.Linear` draws.
    """

    def __init__(self, in_features: int, out_features: int, tasks: Sequence[str], *, zero: bool = False) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.in_features = in_features
        self.out_features = out_features
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(out_features, in_features)) for _ in tasks)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(out_features)) for _ in tasks)
        if not zero:
            bound = 1 / math.sqrt(in_features)
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    @override
    def forward(self, x: Tensor) -> Tensor:
        segments = rows_of_tasks(x, len(self.tasks))
        x = x.to(self.weights[0].dtype)
        if not segments.equal:
            return by_task(x, segments, self._of_task)
        rows = x.reshape(len(self.tasks), -1, self.in_features)
        weight = torch.stack(list(self.weights)).mT
        y = torch.baddbmm(torch.stack(list(self.biases))[:, None], rows, weight)
        return y.view(*x.shape[:-1], self.out_features)

    def _of_task(self, task: int, x: Tensor) -> Tensor:
        """Run the rows of one task through its layer."""
        return F.linear(x, self.weights[task], self.biases[task])

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private parameters by task."""
        return parameters_by_task(self.tasks, self.weights, self.biases)
