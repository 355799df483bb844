"""The ways to take one training step that are compared, and the check that they compute the same gradient."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.workload import Workload
from mtl_opt import PCGrad, TaskGradients, Weighted

VARIANTS = ("plain", "one_pass", "per_task", "torchjd", "torchjd_sequential")
"""`torchjd` is its `autojac` as it comes (vmap over the tasks); `torchjd_sequential` has `parallel_chunk_size=1`."""

Method = Literal["pcgrad", "weighted"]

TOLERANCE = 1e-5
"""Largest relative difference between the gradients of two variants: rounding in float32."""


@dataclass(frozen=True)
class Step:
    """Take one training step up to the gradient; the optimizer, the same for all, is left out.

    Attributes:
        fill: Forward, backward and combination: leaves the combined gradient in `.grad`.
        zero: Makes ready for the next step.
    """

    fill: Callable[[], None]
    zero: Callable[[], None]

    def __call__(self) -> None:
        """Take the step."""
        self.fill()
        self.zero()


def missing(variant: str) -> str:
    """Say why a variant cannot be measured here.

    Args:
        variant: One of `VARIANTS`.

    Returns:
        The reason; empty where it can.
    """
    if variant.startswith("torchjd") and importlib.util.find_spec("torchjd") is None:
        return "the package torchjd is not installed"
    return ""


def build_step(variant: str, work: Workload, method: Method = "pcgrad") -> Step:
    """Build one variant.

    Args:
        variant: One of `VARIANTS`.
        work: Model and batch.
        method: How task gradients are combined: "pcgrad" is what is timed, "weighted" (fixed weights, different for
            each task) has one right answer whatever the order of the tasks. `plain` always adds the losses.

    Returns:
        The step.
    """
    if variant == "plain":
        return _plain(work, method)
    if variant.startswith("torchjd"):
        return _torchjd(work, method, 1 if variant == "torchjd_sequential" else None)
    return _task_gradients(work, method, variant)


def _fixed_weights(work: Workload) -> Tensor:  # [tasks]
    """Give every task a weight of its own, so that exchanged tasks are seen."""
    return torch.arange(1, work.num_tasks + 1, dtype=torch.float32, device=work.input_ids.device) / work.num_tasks


def _zero(work: Workload) -> Callable[[], None]:
    """Build what empties `.grad`."""
    parameters = work.parameters

    def zero() -> None:
        for parameter in parameters:
            parameter.grad = None

    return zero


def _plain(work: Workload, method: Method) -> Step:
    """Joint training: one backward of the sum of the losses."""
    if method == "weighted":
        weights = _fixed_weights(work)
        return Step(lambda: (work.losses() * weights).sum().backward(), _zero(work))
    return Step(lambda: work.losses().sum().backward(), _zero(work))


def _task_gradients(work: Workload, method: Method, engine: Any) -> Step:
    """Build the step of a training loop on this project, with one of its engines."""
    grads = TaskGradients(work.model, [f"task {t}" for t in range(work.num_tasks)], engine)
    combiner = PCGrad() if method == "pcgrad" else Weighted(_fixed_weights(work).tolist())

    def fill() -> None:
        with grads.rows(work.task_ids):
            grads.backward(work.losses(), work.counts)
        grads.combine(combiner)

    return Step(fill, grads.zero)


def _torchjd(work: Workload, method: Method, chunk: int | None) -> Step:
    """Build the peer's step; imported here so that the others run without it."""
    from torchjd.aggregation import Aggregator, Constant
    from torchjd.aggregation import PCGrad as PeerPCGrad
    from torchjd.autojac import backward, jac_to_grad

    parameters = work.parameters
    aggregator: Aggregator = PeerPCGrad() if method == "pcgrad" else Constant(_fixed_weights(work))

    def fill() -> None:
        backward(list(work.losses()), inputs=parameters, parallel_chunk_size=chunk)
        jac_to_grad(parameters, aggregator)

    return Step(fill, _zero(work))


def check(work: Workload, variants: list[str]) -> dict[str, Any]:
    """Compare the gradients of all variants before they are timed.

    With fixed weights every variant must equal plain training on the weighted losses. With PCGrad every variant must
    equal `per_task`, but for the peer only at two tasks: it draws its own order of the tasks, and two have no order.

    Args:
        work: Model and batch.
        variants: Which variants to compare.

    Returns:
        Relative difference of each by method and variant, how far PCGrad is from the plain sum (0 where nothing
        conflicts), tolerance, and whether all passed; ready for JSON.
    """
    truth = _gradient(build_step("plain", work, "weighted"), work)
    reference = _gradient(build_step("per_task", work), work)
    weighted = {v: _difference(_gradient(build_step(v, work, "weighted"), work), truth) for v in variants}
    comparable = [v for v in variants if v == "one_pass" or (v.startswith("torchjd") and work.num_tasks == 2)]
    pcgrad = {v: _difference(_gradient(build_step(v, work), work), reference) for v in comparable}
    return {
        "weighted": weighted,
        "pcgrad": pcgrad,
        "pcgrad_against_plain_sum": _difference(_gradient(build_step("plain", work), work), reference),
        "tolerance": TOLERANCE,
        "passed": all(d <= TOLERANCE for d in [*weighted.values(), *pcgrad.values()]),
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
