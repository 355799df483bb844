"""Does any way to merge gradients beat the sum where one picture holds two digits?

Two tasks read the digit at the upper left and the one at the lower right from the same picture: a shared convolutional
trunk, a head per task, Adam. Every method gets the same data, order and initial weights per seed; its learning rate is
chosen on the validation pictures from the same few, and the test pictures are looked at once. `--mnist FOLDER` takes
MNIST's test digits from idx files instead of scikit-learn's digits.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.command import in_processes
from experiments.multi_digits.pictures import Part, mnist_digits, parts, sklearn_digits
from mtl_opt import COMBINERS, TaskGradients

TASKS = ("upper left", "lower right")
SINGLE = tuple(f"single: {task}" for task in TASKS)
JOINT = ("sum", "pcgrad", "mgda", "cagrad", "imtl_g", "nash_mtl", "upgrad", "gradnorm", "uncertainty")
QUICK = ("sum", "pcgrad", "mgda")
LEARNING_RATES = (1e-3, 3e-3)
BATCH = 64


class Reader(nn.Module):
    """Read two digits: two shared convolutions and a shared layer, a head of two layers per task.

    Args:
        size: Height and width of a picture.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        pooled = size // 2
        self.shared = nn.Sequential(
            nn.Conv2d(1, 10, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(10, 20, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20 * pooled**2, 50),
            nn.ReLU(),
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)) for _ in range(len(TASKS))
        )

    def forward(self, pictures: Tensor) -> list[Tensor]:  # [batch, 1, size, size] -> tasks × [batch, 10]
        """Score the ten digits for each task."""
        features = self.shared(pictures)
        return [head(features) for head in self.heads]


def learn(method: str, lr: float, seed: int, steps: int, mnist: str | None) -> dict[str, Any]:
    """Train one network."""
    found = parts(*(sklearn_digits() if mnist is None else mnist_digits(Path(mnist))), seed)
    train = found["train"]
    torch.manual_seed(seed)
    model = Reader(train.pictures.shape[-1])
    alone = SINGLE.index(method) if method in SINGLE else None
    tasks = [0, 1] if alone is None else [alone]
    private = {TASKS[task]: list(model.heads[task].parameters()) for task in tasks}
    for task in {0, 1} - set(tasks):
        model.heads[task].requires_grad_(False)
    grads = TaskGradients(model, list(private), "per_task", private=private)
    combiner = COMBINERS["sum" if alone is not None else method]()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    generator, conflicts = torch.Generator().manual_seed(seed), 0
    for _ in range(steps):
        rows = torch.randint(len(train.pictures), (BATCH,), generator=generator)
        scores = model(train.pictures[rows])
        grads.backward(torch.stack([cross_entropy(scores[task], train.labels[rows, task]) for task in tasks]))
        conflicts += int((grads.gramian() < 0).any())
        grads.combine(combiner)
        optimizer.step()
        grads.zero()
    accuracies = {part: accuracy(model, found[part]) for part in ("validation", "test")}
    return {"method": method, "lr": lr, "seed": seed, "tasks": tasks, "conflicts": conflicts / steps, **accuracies}


@torch.inference_mode()
def accuracy(model: Reader, part: Part) -> list[float]:
    """Measure how often each digit is read rightly."""
    right = [scores.argmax(1) == part.labels[:, task] for task, scores in enumerate(model(part.pictures))]
    return [float(found.float().mean()) * 100 for found in right]


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Train every method with every learning rate and seed, choose, and judge."""
    mnist = str(options.mnist) if options.mnist else None
    if mnist is not None:
        mnist_digits(Path(mnist))  # before anything is trained
    names = (*SINGLE, *(QUICK if options.quick else JOINT))
    steps = options.steps or (150 if options.quick else 1000)
    seeds = [options.seed + i for i in range(2 if options.quick else 5)]
    calls = [(name, lr, seed, steps, mnist) for name in names for lr in LEARNING_RATES for seed in seeds]
    runs = in_processes(options.jobs, learn, calls, "runs")
    chosen = {name: choose([run for run in runs if run["method"] == name]) for name in names}
    alone = [[run["test"][task] for run in chosen[SINGLE[task]]] for task in range(2)]
    table = {name: row(chosen[name], alone) for name in names if name not in SINGLE}
    table["single"] = {"accuracy": [mean_and_std(values) for values in alone]}
    found = {"verdicts": verdicts(table), "data": "mnist" if mnist else "scikit-learn digits"}
    return {**found, "steps": steps, "seeds": seeds, "table": table, "runs": runs}


def choose(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Take the runs of the learning rate that is best on validation pictures, as a mean over seeds and tasks."""

    def score(lr: float) -> float:
        return statistics.mean(run["validation"][task] for run in runs if run["lr"] == lr for task in run["tasks"])

    best = max({run["lr"] for run in runs}, key=lambda lr: (score(lr), -lr))
    return [run for run in runs if run["lr"] == best]


def row(runs: Sequence[Mapping[str, Any]], alone: Sequence[Sequence[float]]) -> dict[str, Any]:  # alone [tasks, seeds]
    """Summarise a joint method."""
    means = [statistics.mean(run["test"]) for run in runs]
    gains = [mean - statistics.mean(task[place] for task in alone) for place, mean in enumerate(means)]
    return {
        "accuracy": [mean_and_std([run["test"][task] for run in runs]) for task in range(2)],
        "mean_accuracy": mean_and_std(means),
        "by_seed": means,
        "gain_over_single": mean_and_std(gains),
        "lr": runs[0]["lr"],
        "conflicts": statistics.mean(run["conflicts"] for run in runs),
    }


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Summarise a number over seeds."""
    return statistics.mean(values), statistics.stdev(values)


def verdicts(table: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Judge with paired differences: beyond twice their standard error is called a difference."""
    plain = table["sum"]["by_seed"]
    others = {name: found["by_seed"] for name, found in table.items() if name not in {"sum", "single"}}

    def differs(values: Sequence[float], sign: int) -> bool:
        gaps = [sign * (ours - theirs) for ours, theirs in zip(values, plain, strict=True)]
        return statistics.mean(gaps) > 2 * statistics.stdev(gaps) / math.sqrt(len(gaps)) > 0

    gain, spread = table["sum"]["gain_over_single"]
    return {
        "Learning both digits jointly with the sum loses to learning each alone": gain + spread < 0,
        "PCGrad is distinguishable from the sum": differs(others["pcgrad"], 1) or differs(others["pcgrad"], -1),
        "Some method is better than the sum beyond twice the standard error of paired differences": any(
            differs(values, 1) for values in others.values()
        ),
        "Gradients of the two digits conflict in over a quarter of the steps": table["sum"]["conflicts"] > 0.25,
        "Both digits are read rightly in over 60 % of test pictures with the sum": all(
            mean > 60 for mean, _ in table["sum"]["accuracy"]
        ),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only this experiment knows."""
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's t10k idx files; default: scikit-learn's digits")
    parser.add_argument("--steps", type=int, help="steps of every run (default 1000, quick 150)")
