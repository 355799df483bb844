"""Does a sum ignore the task with small targets, and does GradNorm restore it? The synthetic problem of GradNorm.

f_i(x) = σ_i tanh((B + ε_i) x), x in R^250, output in R^100; a trunk of 4 fully connected layers of 100 ReLU and a
linear head per task; mean squared error. Two tasks, σ = (1, 100), α = 0.12; and ten tasks, σ from 1 to 100 in equal
ratios.

Choices where the paper leaves room: B and ε_i have standard deviations 10 and 3.5 (implementations read the paper's
"N(0, 10)" so); x ~ U(−1, 1)^250 divided by its length; 10 000 rows to learn from in batches of 100, 1000 held out. The
loss of a task counts as L_i / σ_i², which is near 1 for a network that answers 0.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from experiments.command import in_processes
from mtl_opt import COMBINERS, TaskGradients

INPUTS, OUTPUTS, WIDTH, LAYERS = 250, 100, 100, 4
SIGMAS = {2: (1.0, 100.0), 10: tuple(float(s) for s in torch.logspace(0, 2, 10, dtype=torch.float64))}
B_STD, EPSILON_STD = 10.0, 3.5
ROWS, HELD_OUT, BATCH = 10_000, 1000, 100
LR, STEPS, QUICK_STEPS = 1e-3, 10_000, 2500
ARGUMENTS: dict[str, dict[str, Any]] = {"gradnorm": {"alpha": 0.12}}

Run = Mapping[str, Any]


class Network(nn.Module):
    """Hold a shared trunk and a linear head per task.

    Args:
        num_tasks: Number of heads.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        widths = [INPUTS] + [WIDTH] * LAYERS
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        self.trunk = nn.Sequential(*(part for pair in layers for part in pair))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, OUTPUTS) for _ in range(num_tasks))

    def forward(self, x: Tensor) -> Tensor:  # [batch, inputs] -> [tasks, batch, outputs]
        """Answer for every task."""
        features = self.trunk(x)
        return torch.stack([head(features) for head in self.heads])


def draw(num_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # -> [rows, inputs]
    """Draw the data."""
    x = torch.rand(ROWS + HELD_OUT, INPUTS, generator=generator) * 2 - 1
    x = x / x.norm(dim=1, keepdim=True)
    common = torch.randn(OUTPUTS, INPUTS, generator=generator) * B_STD
    targets = [
        sigma * torch.tanh(x @ (common + torch.randn(OUTPUTS, INPUTS, generator=generator) * EPSILON_STD).T)
        for sigma in SIGMAS[num_tasks]
    ]
    return x, torch.stack(targets)


def learn(name: str, num_tasks: int, steps: int, seed: int) -> dict[str, Any]:
    """Train with one combiner."""
    generator = torch.Generator().manual_seed(seed)
    x, y = draw(num_tasks, generator)
    torch.manual_seed(seed)
    model = Network(num_tasks)
    combiner = COMBINERS[name](**ARGUMENTS.get(name, {}))
    private = {str(task): list(head.parameters()) for task, head in enumerate(model.heads)}
    grads = TaskGradients(model, list(private), "per_task", private=private, head_policy="weighted")
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    curve, weights = [], None
    for step in range(steps):
        rows = torch.randint(ROWS, (BATCH,), generator=generator)
        grads.backward((model(x[rows]) - y[:, rows]).square().mean((1, 2)))
        weights = grads.combine(combiner)
        optimizer.step()
        grads.zero()
        if (step + 1) % (steps // 10) == 0:
            curve.append(_progress(model, x[ROWS:], y[:, ROWS:]))
    run = {"combiner": name, "num_tasks": num_tasks, "seed": seed, "progress": curve[-1]}
    return {**run, "curve": curve, "weights": None if weights is None else weights.tolist()}


@torch.inference_mode()
def _progress(model: Network, x: Tensor, y: Tensor) -> list[float]:
    """Measure how much of the loss of answering 0 is gone, for every task."""
    left = (model(x) - y).square().mean((1, 2)) / y.square().mean((1, 2))
    return (1 - left).tolist()


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Train both variants with both methods and judge."""
    steps = QUICK_STEPS if options.quick else STEPS
    names = ("gradnorm", "sum") if options.quick else ("gradnorm", "sum", "uncertainty", "dwa", "imtl_g", "log_sum")
    seeds = [options.seed + i for i in range(1 if options.quick else 3)]
    calls = [(name, num_tasks, steps, seed) for num_tasks in (10, 2) for name in names for seed in seeds]
    runs = in_processes(options.jobs, learn, calls, "runs")
    verdicts: dict[str, bool] = {}
    for num_tasks in SIGMAS:
        of = {name: [r for r in runs if (r["combiner"], r["num_tasks"]) == (name, num_tasks)] for name in names}
        verdicts |= _verdicts(num_tasks, of["sum"], of["gradnorm"])
    return {"verdicts": verdicts, "runs": runs}


def _verdicts(num_tasks: int, plain: Sequence[Run], balanced: Sequence[Run]) -> dict[str, bool]:
    """Judge the claim; `progress` is 1 − loss over the loss of answering 0, first task smallest."""
    pairs = list(zip(plain, balanced, strict=True))
    say_tasks = f"T={num_tasks}"
    return {
        f"{say_tasks}: the sum ignores the task with σ = 1: less than a quarter of the largest task's progress": all(
            run["progress"][0] < run["progress"][-1] / 4 for run in plain
        ),
        f"{say_tasks}: GradNorm gives the task with σ = 1 over ten times the weight of that with σ = 100": all(
            run["weights"][0] > 10 * run["weights"][-1] for run in balanced
        ),
        f"{say_tasks}: GradNorm takes the task with σ = 1 further than the sum does": all(
            ours["progress"][0] > theirs["progress"][0] for theirs, ours in pairs
        ),
        f"{say_tasks}: GradNorm restores it: over half of the largest task's progress": all(
            run["progress"][0] > run["progress"][-1] / 2 for run in balanced
        ),
        f"{say_tasks}: the task with σ = 100 pays for it (loses over a tenth of its progress)": all(
            ours["progress"][-1] < 0.9 * theirs["progress"][-1] for theirs, ours in pairs
        ),
    }
