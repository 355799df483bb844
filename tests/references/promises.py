"""What a method promises of its update, each as a question to any combiner: does it hold on every input tried?"""

from collections.abc import Callable
from typing import Any

import torch
from references.contract_inputs import LOSSES, given, jacobian
from torch import Tensor

from mtl_opt.combiners import COMBINERS, Combiner

NAMES = ["qa", "投诉", "anger", "ner", "sum", "mt"]

ARGUMENTS: dict[str, dict[str, Any]] = {
    "cagrad": {"c": 1.0},  # no conflict from a radius of 1 on
    "pcd": {"primary": "qa"},
    "priority": {"main": ["qa"]},
    "auxiliary": {"main": ["qa"]},
    "dwa": {"window": 1},  # short memories: so that they have learnt something after three steps
    "learning_speed": {"window": 1},
    "coba": {"warmup": 2, "window": 3},
    "excess_mtl": {"lr": 1.0},
    "moco": {"gamma": 1e-3},
    "modo": {"gamma": 1e-3},
}
"""Arguments under which a method is asked; the defaults elsewhere."""


def update(name: str, rows: Tensor, order: Tensor | None = None, num_steps: int = 3) -> Tensor:
    """Combine rows with a fresh object, the tasks in any order, after steps on other rows."""
    place = torch.arange(len(rows)) if order is None else order
    combiner: Combiner = COMBINERS[name](**ARGUMENTS.get(name, {}))
    combiner.bind([NAMES[t] for t in place])
    rates = torch.linspace(0.5, 0.9, len(rows), dtype=torch.float64)
    for step in range(num_steps):
        stretched = rows * (1 + (num_steps - 1 - step) * torch.linspace(0, 1, rows.shape[1], dtype=torch.float64))
        losses = (LOSSES[: len(rows)] * rates**step)[place]
        combined = combiner(given(combiner, stretched[place]), losses)
        if combiner.observes != "nothing":
            combiner.observe(losses * rates[place])
    return combined


def conflict(rows: Tensor, combined: Tensor) -> float:
    """Measure the worst conflict as a share of the rows' lengths."""
    lengths = rows.norm(dim=1).clamp(min=1e-300)
    return float((-(rows @ combined) / lengths).max() / lengths.mean())


def parallel(one: Tensor, other: Tensor) -> bool:
    """Tell whether two vectors have the same direction."""
    return float(torch.cosine_similarity(one, other, dim=0)) > 1 - 1e-9


def scaled(num_tasks: int, num_params: int, seed: int) -> Tensor:
    """Draw rows of lengths 1 to 100 in a random order."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.logspace(0, 2, num_tasks, dtype=torch.float64)[torch.randperm(num_tasks, generator=generator)]
    return jacobian(num_tasks, num_params, seed=seed) * lengths[:, None]


def no_conflict(name: str) -> bool:
    """The update conflicts with no gradient, also where gradients depend on each other."""
    cases = [scaled(6, 3, seed) for seed in range(5)]
    return no_conflict_if_independent(name) and all(conflict(rows, update(name, rows)) < 1e-9 for rows in cases)


def no_conflict_if_independent(name: str) -> bool:
    """The update conflicts with no gradient where they are linearly independent."""
    cases = [scaled(m, n, seed) for m, n in ((2, 5), (4, 9), (6, 20)) for seed in range(5)]
    one, other = jacobian(2, 6)
    cases.append(torch.stack([one, 0.01 * other - one]))  # nearly opposite
    between = torch.tensor([[1.0, 0.85, 0.85], [0.85, 1.0, 0.5], [0.85, 0.5, 1.0]], dtype=torch.float64)
    lengths = torch.tensor([0.1, 1.0, 1.0], dtype=torch.float64)  # a short gradient between two longer ones
    cases.append(torch.linalg.cholesky(between) * lengths[:, None])
    return all(conflict(rows, update(name, rows)) < 1e-9 for rows in cases)


def linear(name: str) -> bool:
    """Scaling a gradient scales its term of the update alone."""
    for seed in range(3):
        rows = jacobian(4, 9, seed=seed)
        one, other = (10 ** jacobian(1, 4, seed=s)[0] for s in (seed, 9))
        found = update(name, (2 * one + 3 * other)[:, None] * rows)
        wanted = 2 * update(name, one[:, None] * rows) + 3 * update(name, other[:, None] * rows)
        if not torch.allclose(found, wanted, rtol=1e-7, atol=1e-9):
            return False
    return True


def homogeneous(name: str) -> bool:
    """The direction stays where all gradients are multiplied by the same number."""
    rows = [jacobian(4, 9, seed=seed) for seed in range(3)]
    return all(parallel(update(name, scale * one), update(name, one)) for one in rows for scale in (1e-5, 1e5))


def rests(name: str) -> bool:
    """The update is 0 where a positive combination of all gradients is 0, whatever its coefficients."""
    for seed in range(5):
        rows = jacobian(4, 9, seed=seed)
        rows[3] = -(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64) @ rows[:3])
        if float(update(name, rows).norm()) > 1e-6 * float(rows.norm(dim=1).mean()):
            return False
    return True


def moves(name: str) -> bool:
    """The update is not 0 where no combination of the gradients is."""
    rows = [jacobian(m, n, seed=seed) for m, n in ((3, 9), (6, 20)) for seed in range(5)]
    return all(float(update(name, one).norm()) > 5e-3 for one in rows)


def any_order(name: str) -> bool:
    """The update is the same in whatever order the tasks stand."""
    for seed in range(3):
        rows = scaled(6, 9, seed)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        found, wanted = update(name, rows, order), update(name, rows)
        if not torch.allclose(found, wanted, rtol=1e-7, atol=1e-9 * float(wanted.norm())):
            return False
    return True


def bisector(name: str) -> bool:
    """Two gradients: the update has the direction of the sum of the unit gradients."""
    cases = [scaled(2, 5, seed) for seed in range(10)]
    return all(parallel(update(name, rows), (rows / rows.norm(dim=1)[:, None]).sum(0)) for rows in cases)


def as_pcgrad(name: str) -> bool:
    """Two gradients: the update has the direction of each made orthogonal to the other where they conflict, added."""
    for seed in range(10):
        rows = scaled(2, 5, seed)
        wanted = rows.sum(0)
        inner = float(rows[0] @ rows[1])
        if inner < 0:
            wanted = wanted - inner / rows[1].square().sum() * rows[1] - inner / rows[0].square().sum() * rows[0]
        if not parallel(update(name, rows, num_steps=1), wanted):
            return False
    return True


def mean_if_agreed(name: str) -> bool:
    """The update has the direction of the mean where no two gradients conflict."""
    cases = [torch.rand(4, 9, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in range(3)]
    return all(parallel(update(name, rows), rows.mean(0)) for rows in cases)


PROMISES: dict[str, Callable[[str], bool]] = {
    "no_conflict": no_conflict,
    "independent": no_conflict_if_independent,
    "linear": linear,
    "homogeneous": homogeneous,
    "rests": rests,
    "moves": moves,
    "any_order": any_order,
    "bisector": bisector,
    "as_pcgrad": as_pcgrad,
    "mean_if_agreed": mean_if_agreed,
}
"""Every promise that some methods make and others do not."""
