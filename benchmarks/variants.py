"""The ways to take one training step that are compared, and the check that they compute the same gradient."""

from typing import Any

import torch
from torch import Tensor

from benchmarks import peer_steps
from benchmarks.step import Method, Step, emptier, fixed_weights
from benchmarks.workload import Workload
from mtl_opt import PCGrad, TaskGradients, Weighted

OPTIONS: dict[str, dict[str, Any]] = {
    "one_pass": {},
    "one_pass_window": {"window": 20},
    "one_pass_layers": {},
    "one_pass_halves": {"halves": True},
    "per_task": {},
    "two_pass": {},
}
"""Options of `TaskGradients` by variant; `one_pass_layers` also reads a Gramian per layer."""

VARIANTS = ("plain", *OPTIONS, *peer_steps.PEERS)

FULL_VARIANTS = ("plain", "one_pass", "two_pass")
"""What is measured by default where every parameter is trained."""


def missing(variant: str) -> str:
    """Say why a variant cannot be measured here."""
    return peer_steps.missing(variant) if variant in peer_steps.PEERS else ""


def unsuitable(variant: str, work: Workload) -> str:
    """Say why a variant cannot take this step."""
    if variant == "one_pass_halves" and int(work.task_ids.bincount().min()) < 2:
        return "halves need two rows of every task"
    return ""


def build_step(variant: str, work: Workload, method: Method = "pcgrad") -> Step:
    """Build one variant."""
    if variant == "plain":
        return _plain(work, method)
    if variant in peer_steps.PEERS:
        return peer_steps.PEERS[variant](work, method)
    return _task_gradients(work, method, variant)


def _plain(work: Workload, method: Method) -> Step:
    """Joint training: one backward of the sum of the losses."""
    if method == "weighted":
        weights = fixed_weights(work)
        return Step(lambda: (work.losses() * weights).sum().backward(), emptier(work.parameters))
    return Step(lambda: work.losses().sum().backward(), emptier(work.parameters))


def _task_gradients(work: Workload, method: Method, variant: str) -> Step:
    """Build the step of a training loop on this project, with one of its engines."""
    engine = variant if variant in {"per_task", "two_pass"} else "one_pass"
    tasks = [f"task {t}" for t in range(work.num_tasks)]
    grads = TaskGradients(work.model, tasks, engine, **OPTIONS[variant])
    combiner = PCGrad() if method == "pcgrad" else Weighted(fixed_weights(work).tolist())

    def fill() -> None:
        with grads.rows(work.task_ids):
            if grads.halves is None:
                grads.backward(work.losses(), work.counts)
            else:
                counts = torch.zeros_like(work.counts).repeat(2).index_add(0, grads.owners, work.row_counts)
                grads.backward(work.losses_of(grads.owners, counts).view(2, -1), counts.view(2, -1))
        if variant == "one_pass_layers":
            grads.gramian(by="layer")
        grads.combine(combiner)

    return Step(fill, grads.zero, _kept(grads))


def _kept(grads: TaskGradients) -> int:
    """Count the bytes of rows and of their sums."""
    rows = 0 if grads.engine.name == "two_pass" else grads.buffer.rows.nbytes
    return rows + (grads.window.sums.nbytes if grads.window else 0)


def check(work: Workload, variants: list[str]) -> dict[str, Any]:
    """Compare the gradients of all variants before they are timed.

    With fixed weights every variant must equal plain training on the weighted losses. With PCGrad every variant must
    equal `per_task`, but for the peers only at two tasks: they draw their own order of the tasks, and two have none.
    """
    truth = _gradient(build_step("plain", work, "weighted"), work)
    reference = _gradient(build_step("per_task", work), work)
    weighted = {v: _difference(_gradient(build_step(v, work, "weighted"), work), truth) for v in variants}
    comparable = [v for v in variants if v in OPTIONS or (v in peer_steps.PEERS and work.num_tasks == 2)]
    pcgrad = {v: _difference(_gradient(build_step(v, work), work), reference) for v in comparable}
    return {
        "weighted": weighted,
        "pcgrad": pcgrad,
        "pcgrad_against_plain_sum": _difference(_gradient(build_step("plain", work), work), reference),
        "tolerance": work.tolerance,
        "passed": all(d <= work.tolerance for d in [*weighted.values(), *pcgrad.values()]),
    }


def _gradient(step: Step, work: Workload) -> Tensor:  # [params]
    """Read the gradient that a step leaves."""
    step.fill()
    found = torch.cat([p.grad.flatten() for p in work.parameters if p.grad is not None])
    step.zero()
    return found


def _difference(found: Tensor, wanted: Tensor) -> float:  # [params], [params]
    """Compute the distance relative to what is wanted."""
    return float((found - wanted).norm() / wanted.norm())
