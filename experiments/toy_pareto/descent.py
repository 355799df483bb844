"""Descend a problem of two parameters with a combiner from several points at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from experiments.toy_pareto.two_tasks import BOTTOM, VARIANTS, Adam, Variant, losses_and_jacobian
from mtl_opt import COMBINERS, Combiner

SETTLED_STEPS, SETTLED = 5000, 1e-4
"""A run is over early once it has stayed within a box of this size for this many steps."""

RECORDED = 400
"""Points kept of a trajectory."""

Problem = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points `[runs, params]` to losses `[runs, tasks]` and Jacobians `[runs, tasks, params]`."""


@dataclass
class Descent:
    """Hold what became of one combiner from every starting point.

    Attributes:
        points: Last points. `[runs, params]`
        losses: Last losses. `[runs, tasks]`
        steps: Steps that were taken. `[runs]`
        paths: Points on the way, the first and last among them; one array per run. `[recorded, params]`
        notes: What the combiner did instead of its method.
    """

    points: np.ndarray
    losses: np.ndarray
    steps: list[int]
    paths: list[np.ndarray]
    notes: list[str]


def combined(combiner: Combiner, jacobian: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """Ask a combiner for its update; both halves of a step are equal where there is no noise."""
    if combiner.requires == "halves":
        return combiner(torch.stack([jacobian, jacobian]), losses)
    if combiner.requires == "jacobian":
        return combiner(jacobian, losses)
    gramian = None if combiner.requires == "losses" else jacobian @ jacobian.T
    return combiner.weights(gramian, losses) @ jacobian


def two_tasks(name: str, variant_name: str, max_steps: int | None = None) -> Descent:
    """Run a combiner on a published setting of the two-task toy."""
    variant: Variant = VARIANTS[variant_name]
    arguments: Mapping[str, Any] = variant.arguments.get(name, {})
    combiners = [COMBINERS[name](**arguments) for _ in variant.inits]
    bottom = torch.tensor(variant.scale, dtype=torch.float64) * BOTTOM

    def problem(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return losses_and_jacobian(points, variant.scale)

    steps = min(variant.steps, max_steps or variant.steps)
    return descend(problem, np.array(variant.inits), combiners, steps, bottom=bottom, adam_lr=variant.lr)


@torch.inference_mode()
def descend(
    problem: Problem,
    inits: np.ndarray,  # [runs, params]
    combiners: list[Combiner],
    steps: int,
    *,
    bottom: torch.Tensor | float = 0.0,
    adam_lr: float | None = None,
    lr: float = 0.0,
) -> Descent:  # inits [runs, params]
    """Take the steps of all runs side by side."""
    found = Descent(inits.copy(), np.zeros_like(inits), [steps] * len(inits), [[] for _ in inits], [])
    points, active = inits.copy(), np.arange(len(inits))
    adam = Adam(points.shape, adam_lr) if adam_lr is not None else None
    every, anchor, box = max(1, steps // RECORDED), points.copy(), np.zeros(len(points))
    losses, jacobian = problem(points)
    for step in range(steps):
        if step % every == 0:
            for place, run in enumerate(active):
                found.paths[run].append(points[place].copy())
        try:
            gradients = _gradients([combiners[run] for run in active], jacobian, losses, bottom)
        except ValueError as error:  # such as a gradient that overflowed: the runs end here
            found.notes.append(f"refused at step {step}: {error}")
            _keep(found, active, points, losses, step)
            break
        if adam is None:
            points -= lr * gradients
        else:
            adam.step(points, gradients)
        losses, jacobian = problem(points)
        _observe([combiners[run] for run in active], losses, bottom)
        box = np.maximum(box, np.abs(points - anchor).max(1))
        if (step + 1) % SETTLED_STEPS == 0:
            going = box > SETTLED
            _keep(found, active[~going], points[~going], losses[~going], step + 1)
            points, losses, jacobian, active = points[going], losses[going], jacobian[going], active[going]
            anchor, box = points.copy(), np.zeros(len(points))
            if adam is not None:
                adam.keep(going)
            if not len(active):
                break
    else:
        _keep(found, active, points, losses, steps)
    found.paths = [np.array([*path, last]) for path, last in zip(found.paths, found.points, strict=True)]
    found.notes += sorted({note for combiner in combiners for note in combiner.take_notes()})
    return found


def _gradients(combiners: list[Combiner], jacobian: np.ndarray, losses: np.ndarray, bottom: Any) -> np.ndarray:
    """Ask every run's combiner."""
    rows, above = torch.from_numpy(jacobian), torch.from_numpy(losses) - bottom
    return torch.stack([combined(c, j, loss) for c, j, loss in zip(combiners, rows, above, strict=True)]).numpy()


def _observe(combiners: list[Combiner], losses: np.ndarray, bottom: Any) -> None:
    """Hand the losses after the step to the combiners that want them; there is one batch, so it validates too."""
    if combiners and combiners[0].observes != "nothing":
        for combiner, loss in zip(combiners, torch.from_numpy(losses) - bottom, strict=True):
            combiner.observe(loss)


def _keep(found: Descent, runs: np.ndarray, points: np.ndarray, losses: np.ndarray, steps: int) -> None:
    """Write down the end of some runs."""
    found.points[runs], found.losses[runs] = points, losses
    for run in runs:
        found.steps[run] = steps
