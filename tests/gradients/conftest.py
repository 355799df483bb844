"""The models the engines must agree on, and how to take one step of gradients."""

from collections.abc import Callable, Sequence

import pytest
import torch
from references.jacobian_reference import LossesOf, Rows, class_losses, token_losses
from torch import Tensor, nn

from mtl_opt.gradients import TaskGradients

NAMES = ("lora_llama", "full_llama", "lora_bert", "full_bert")


@pytest.fixture(params=NAMES)
def model_and_losses(request, make_llama, make_bert) -> tuple[nn.Module, LossesOf]:
    """Give a model with its per-task losses."""
    lora = request.param.startswith("lora")
    if request.param.endswith("llama"):
        return make_llama(lora), token_losses
    return make_bert(lora), class_losses


@pytest.fixture
def take_rows() -> Callable[[TaskGradients, nn.Module, LossesOf, Sequence[Rows]], Tensor]:
    """Accumulate micro-batches and read a copy of the Jacobian."""

    def take(grads: TaskGradients, model: nn.Module, losses_of: LossesOf, batches: Sequence[Rows]) -> Tensor:
        for rows in batches:
            with grads.rows(rows.ids):
                grads.backward(*losses_of(model, rows, grads.num_tasks))
        return grads.jacobian.clone()  # [tasks, params]

    return take


@pytest.fixture
def by_name() -> Callable[[TaskGradients, dict[str, Tensor]], Tensor]:
    """Lay gradients given by parameter out in the columns of the Jacobian."""

    def lay_out(grads: TaskGradients, gradients: dict[str, Tensor]) -> Tensor:  # [tasks, params]
        wanted = torch.full_like(grads.buffer.rows, torch.nan)
        for name, gradient in gradients.items():
            wanted[:, grads.buffer.tensors[name]] = gradient.flatten(1).to(wanted)
        return wanted

    return lay_out


@pytest.fixture
def row_error() -> Callable[[Tensor, Tensor], float]:
    """Measure the largest relative error of any row; rows that are zero must be exactly zero."""

    def error(found: Tensor, wanted: Tensor) -> float:
        size = wanted.norm(dim=1)
        distance = (found - wanted).norm(dim=1)
        return float(torch.where(size > 0, distance / size, torch.where(distance > 0, torch.inf, 0.0)).max())

    return error


@pytest.fixture
def small() -> tuple[nn.Module, Tensor, Callable[[], Tensor]]:
    """Give a model on rows, ids with two rows for each of three tasks, and a function of their losses."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    ids = torch.arange(3).repeat(2)
    x = torch.randn(6, 4)

    def losses() -> Tensor:  # [tasks]
        squares = model(x).squeeze(-1).square()
        return torch.stack([squares[ids == task].mean() for task in range(3)])

    return model, ids, losses


@pytest.fixture(params=["one_pass", "per_task"])
def read(request, small) -> tuple[nn.Module, TaskGradients]:
    """Give a model and a step whose rows are filled."""
    model, ids, losses = small
    grads = TaskGradients(model, ["qa", "summary", "投诉"], request.param)
    with grads.rows(ids):
        grads.backward(losses())
    return model, grads
