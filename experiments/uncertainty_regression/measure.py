"""Does uncertainty weighting learn the noise of its tasks? The regression of Kendall's notebook.

100 points x ~ N(0, 1); y1 = 2 x + 8 + 10 ε, y2 = 3 x + 3 + ε, ε ~ N(0, 1). One hidden layer of 1024 ReLU, a linear head
per task, Adam at its defaults, batches of 20, 2000 epochs. The notebook learns σ = (8.587, 0.9198); the sample's own
noise, the standard deviation of the residuals of a straight line, is what can be learnt from 100 points.
"""

import argparse
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from experiments.command import in_processes
from mtl_opt import TaskGradients, UncertaintyWeighting

POINTS, HIDDEN, BATCH, EPOCHS = 100, 1024, 20, 2000
LINES = ((2.0, 8.0), (3.0, 3.0))
NOISE = (10.0, 1.0)
PUBLISHED = (8.587, 0.9198)
TOLERANCE = 0.2


class TwoHeads(nn.Module):
    """Hold one shared hidden layer and a linear head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(1, HIDDEN)
        self.heads = nn.ModuleList(nn.Linear(HIDDEN, 1) for _ in LINES)

    def forward(self, x: Tensor) -> Tensor:  # [batch, 1] -> [batch, tasks]
        """Predict both tasks."""
        hidden = self.shared(x).relu()
        return torch.cat([head(hidden) for head in self.heads], 1)


def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:  # -> [points, 1]
    """Draw the points."""
    x = torch.randn(POINTS, 1, generator=generator)
    targets = [slope * x + shift for slope, shift in LINES]
    noise = torch.randn(POINTS, len(LINES), generator=generator) * torch.tensor(NOISE)
    return x, torch.cat(targets, 1) + noise


def residual_noise(x: Tensor, y: Tensor) -> Tensor:  # [points, 1], [points, tasks] -> [tasks]
    """Measure the noise of the sample: what the best straight line leaves."""
    design = torch.cat([x, torch.ones_like(x)], 1).double()
    line = torch.linalg.lstsq(design, y.double()).solution
    return (y - design @ line).square().mean(0).sqrt()


def learn(seed: int, epochs: int) -> dict[str, Any]:
    """Train with uncertainty weighting."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x, y = draw(generator)
    model, combiner = TwoHeads(), UncertaintyWeighting(form="regression", lr=1e-3)
    private = {str(task): list(head.parameters()) for task, head in enumerate(model.heads)}
    grads = TaskGradients(model, list(private), "per_task", private=private, head_policy="weighted")
    optimizer = torch.optim.Adam(model.parameters())
    course = []
    for epoch in range(epochs):
        for rows in torch.randperm(POINTS, generator=generator).split(BATCH):
            grads.backward((model(x[rows]) - y[rows]).square().mean(0))
            grads.combine(combiner)
            optimizer.step()
            grads.zero()
        if (epoch + 1) % max(1, epochs // 10) == 0:
            course.append(_sigma(combiner))
    return {"seed": seed, "sigma": _sigma(combiner), "noise_of_sample": residual_noise(x, y), "course": course}


def _sigma(combiner: UncertaintyWeighting) -> list[float]:
    """Read σ from what the combiner learnt: the logarithm of σ²."""
    return [math.exp(float(value) / 2) for value in combiner.log_variance]


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Learn σ for several draws of the data and judge."""
    seeds = [options.seed + i for i in range(1 if options.quick else 5)]
    runs = in_processes(options.jobs, learn, [(seed, EPOCHS) for seed in seeds], "seeds")

    def near(wanted: list[list[float]]) -> bool:
        pairs = [
            pair for run, values in zip(runs, wanted, strict=True) for pair in zip(run["sigma"], values, strict=True)
        ]
        return all(abs(sigma / value - 1) <= TOLERANCE for sigma, value in pairs)

    verdicts = {
        "Learnt σ is within 20 % of the notebook's 8.587 and 0.9198": near([list(PUBLISHED)] * len(runs)),
        "Learnt σ is within 20 % of the noise of the very sample": near([r["noise_of_sample"].tolist() for r in runs]),
        "Learnt σ is below the true noise of 10 and 1 for both tasks: the network fits some of it": all(
            sigma < true for run in runs for sigma, true in zip(run["sigma"], NOISE, strict=True)
        ),
    }
    return {"verdicts": verdicts, "runs": runs}
