"""The models and steps that the benchmark of sharing compares: a way of sharing, and the same parameters unrouted."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.sizes import Size
from benchmarks.step import Step, emptier
from benchmarks.workload import Workload, build_model
from mtl_opt import PCGrad, TaskGradients, Weighted
from mtl_opt.batch import task_rows
from mtl_opt.models import LoraSettings, private_parameters, row_terms, share
from mtl_opt.models.sharing import AdapterSharing, LinearLayer, SharedLora, SharingContext

ACTIVE = {"mtl_lora": (1, 3), "hydra": (1, 3), "experts": (4, 4), "sparse_experts": (2, 2)}
"""Ranks of the first and of the second matrix that are active on a row, in units of the rank; others are counted."""


class Unrouted(AdapterSharing):
    """Plain LoRA whose two matrices may have different ranks; hidden features are repeated to fit.

    Args:
        ranks: Rank of the first and of the second matrix.
    """

    summary = "plain LoRA"

    def __init__(self, ranks: tuple[int, int]) -> None:
        self.ranks = ranks

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return _Repeated(layer, context.lora, self.ranks)


class _Repeated(SharedLora):
    """`B repeat(A x)`; with equal ranks it is `SharedLora`."""

    def __init__(self, layer: LinearLayer, lora: LoraSettings, ranks: tuple[int, int]) -> None:
        super().__init__(layer, lora)
        self.times = ranks[1] // ranks[0]
        self.lora_A = nn.Linear(layer.in_features, ranks[0], bias=False, device=layer.device)
        self.lora_B = nn.Linear(ranks[1], layer.out_features, bias=False, device=layer.device)

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.lora_A(self.dropout(x.to(self.lora_A.weight.dtype)))
        return self.lora_B(h if self.times == 1 else h.repeat(*[1] * (h.dim() - 1), self.times)) * self.scaling


def build(way: Any, size: Size, num_tasks: int, device: torch.device) -> Any:
    """Build a Llama with random weights and a way of sharing in it."""
    model = build_model(size, device, "full")
    model = model.to(torch.bfloat16) if size.autocast else model
    torch.manual_seed(0)
    lora = LoraSettings(rank=size.rank, alpha=16)
    share(model, way, [f"task {t}" for t in range(num_tasks)], lora)
    for parameter in model.parameters():
        if parameter.requires_grad and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    return model.to(device).train()


def active(model: nn.Module, num_tasks: int) -> int:
    """Count the trained parameters that a row of a task meets, those of all tasks together divided by the tasks."""
    own = sum(p.numel() for group in private_parameters(model).values() for p in group)
    return sum(p.numel() for p in model.parameters() if p.requires_grad) - own + own // num_tasks


def counterpart(name: str, model: nn.Module, plain: nn.Module, size: Size, num_tasks: int) -> tuple[int, int]:
    """Say which plain LoRA has as many active parameters."""
    if name in ACTIVE:
        return ACTIVE[name][0] * size.rank, ACTIVE[name][1] * size.rank
    rank = max(1, round(size.rank * active(model, num_tasks) / active(plain, num_tasks)))
    return rank, rank


def build_step(model: nn.Module, work: Workload, engine: str, combine: str = "pcgrad") -> Step:
    """Build one step."""

    def losses() -> Tensor:
        found = work.losses()
        terms = row_terms(model)
        return found if terms is None else found + terms

    if engine == "plain":

        def fill() -> None:
            with task_rows(work.task_ids):
                losses().sum().backward()

        return Step(fill, emptier(work.parameters))
    tasks = [f"task {t}" for t in range(work.num_tasks)]
    grads = TaskGradients(model, tasks, "one_pass", private=private_parameters(model))
    combiner = PCGrad() if combine == "pcgrad" else Weighted([1.0] * work.num_tasks)

    def fill_rows() -> None:
        with grads.rows(work.task_ids):
            grads.backward(losses(), work.counts)
        grads.combine(combiner)

    return Step(fill_rows, grads.zero)


def check(model: nn.Module, work: Workload) -> float:
    """Compare the gradient of one backward for all tasks with that of plain training, before anything is timed."""
    found = []
    for engine in ("plain", "one_pass"):
        step = build_step(model, work, engine, "sum")
        step.fill()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in work.parameters]
        found.append(torch.cat([gradient.flatten().float() for gradient in gradients]))
        step.zero()
    difference = float((found[1] - found[0]).norm() / found[0].norm())
    if difference > work.tolerance:
        raise SystemExit(f"{type(model.sharing).__name__}: the engines do not compute the same gradient: {difference}")
    return difference
