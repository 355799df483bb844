"""How the claims are tested: each function builds a test that takes a seed."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import cosine_similarity

from experiments.controlled_conflict.family import Course, Knobs, Problem, descend
from mtl_opt import (
    MGDA,
    Combiner,
    Denoised,
    GradVac,
    NormMatched,
    PCGrad,
    Sum,
)

Test = Callable[[int], tuple[bool, dict[str, float]]]
"""Takes a seed; returns whether a prediction holds, and the numbers that it rests on."""


def one_step(knobs: Knobs, combiner: Combiner, lr: float) -> tuple[Course, float]:
    """Take one exact step from 0."""
    course = descend(Problem(knobs), combiner, lr=lr, steps=1)
    return course, float(course.losses.sum())


def _angle(first: Tensor, second: Tensor) -> float:
    """Measure the angle between two updates, in degrees."""
    return math.degrees(math.acos(min(1.0, max(-1.0, float(cosine_similarity(first, second, dim=0))))))


def pcgrad_one_step(knobs: Knobs, wins: bool, same_length: bool = False) -> Test:
    """Compare one step of PCGrad with one of the sum, learning rate 1, by the summed loss."""

    def test(_: int) -> tuple[bool, dict[str, float]]:
        methods: tuple[Combiner, ...] = (PCGrad(), Sum())
        if same_length:
            methods = tuple(NormMatched(method) for method in methods)
        pcgrad, plain = (one_step(knobs, method, 1.0)[1] for method in methods)
        return (pcgrad < plain) == wins, {"pcgrad": pcgrad, "sum": plain}

    return test


def pcgrad_is_sum(_: int) -> tuple[bool, dict[str, float]]:
    """Compare the updates of agreeing gradients."""
    knobs = Knobs(cosine=0.3, ratio=3)
    ours, theirs = one_step(knobs, PCGrad(), 1.0)[0], one_step(knobs, Sum(), 1.0)[0]
    return bool(ours.updates.equal(theirs.updates)), {"difference": float((ours.updates - theirs.updates).norm())}


def gradvac_differs(_: int) -> tuple[bool, dict[str, float]]:
    """Compare GradVac with a target of 0.5 to the sum on gradients that agree, but less than that."""
    knobs = Knobs(cosine=0.2, ratio=3)
    ours, theirs = one_step(knobs, GradVac(target=0.5), 1.0)[0], one_step(knobs, Sum(), 1.0)[0]
    angle = _angle(ours.updates, theirs.updates)
    return angle > 1, {"angle": angle}


def mgda_small_gradient(_: int) -> tuple[bool, dict[str, float]]:
    """Measure where MGDA's update points when one gradient is a hundred times longer."""
    problem = Problem(Knobs(cosine=-0.5, ratio=100))
    update = descend(problem, MGDA(), lr=0.0, steps=1).updates
    first, second = problem.slopes
    numbers = {
        "angle_to_small": _angle(update, first),
        "gain_large_over_sum": float(update @ second) / float(second @ second),
    }
    return float(update @ second) < 0.01 * float(problem.slopes.sum(0) @ second), numbers


def mgda_balanced(_: int) -> tuple[bool, dict[str, float]]:
    """Compare the worst task's first-order gain per unit of update when gradients are equally long and conflict."""
    return _worst_gain(MGDA(), Knobs(cosine=-0.8, ratio=1.0), at_least=1 - 1e-9)


def mgda_worst_task(_: int) -> tuple[bool, dict[str, float]]:
    """Compare the worst task's first-order gain per unit of update, at a norm ratio of 10."""
    return _worst_gain(MGDA(), Knobs(cosine=-0.5, ratio=10.0), at_least=1.5)


def _worst_gain(combiner: Combiner, knobs: Knobs, at_least: float) -> tuple[bool, dict[str, float]]:
    """Compare the worst task's gain per unit of update with the sum's, as a factor (sums that harm count as 0)."""
    problem = Problem(knobs)
    gains = []
    for method in (combiner, Sum()):
        update = descend(problem, method, lr=0.0, steps=1).updates
        gains.append(float((problem.slopes @ update / update.norm()).min()))
    ours, theirs = gains
    return ours > 0 and ours >= at_least * max(theirs, 0.0), {"worst_gain": ours, "worst_gain_of_sum": theirs}


def unmoved_by_scale(method: Callable[[], Combiner], moved: bool) -> Test:
    """Rescale one task by 100 and measure how far the update turns."""

    def test(_: int) -> tuple[bool, dict[str, float]]:
        updates = [
            descend(Problem(Knobs(cosine=-0.3, ratio=ratio)), method(), lr=0.0, steps=1).updates
            for ratio in (1.0, 100.0)
        ]
        angle = _angle(*updates)
        return angle > 10 if moved else angle < 0.01, {"angle": angle}

    return test


def harm(method: Callable[[], Combiner], harmed: bool) -> Test:
    """Ask whether the weaker task's loss rises to first order at a norm ratio of 10 and a cosine of -0.5."""

    def test(_: int) -> tuple[bool, dict[str, float]]:
        problem = Problem(Knobs(cosine=-0.5, ratio=10))
        gain = float(problem.slopes[0] @ descend(problem, method(), lr=0.0, steps=1).updates)
        return (gain < -1e-9) == harmed, {"first_order_gain_of_weaker": gain}

    return test


def at_the_end(method: Callable[[], Combiner], better: bool, worst: bool) -> Test:
    """Descend a curved problem to the end and compare with the sum."""

    def test(_: int) -> tuple[bool, dict[str, float]]:
        problem = Problem(Knobs(cosine=-0.5, ratio=5, curvature=1.0))
        courses = [descend(problem, combiner, lr=0.1, steps=300) for combiner in (method(), Sum())]
        ours, theirs = (float(c.losses.max() if worst else c.losses.sum()) for c in courses)
        return (ours < theirs - 1e-9) == better, {"method": ours, "sum": theirs}

    return test


NOISY = Knobs(cosine=0.5, noise=20.0)
STEPS = WINDOW = 600


def conflicts_are_spurious(seed: int) -> tuple[bool, dict[str, float]]:
    """Count conflicts of batches whose expected gradients agree."""
    course = descend(Problem(NOISY), Sum(), lr=0.0, steps=STEPS, seed=seed)
    return course.conflicts > 0.35, {"conflict_rate": course.conflicts, "true_cosine": NOISY.cosine}


def window_sees_through(seed: int) -> tuple[bool, dict[str, float]]:
    """Estimate the cosine of the expected gradients from a window."""
    course = descend(Problem(NOISY), Denoised(PCGrad(), window=WINDOW), lr=0.0, steps=STEPS, seed=seed)
    found = course.corrected_cosine
    return abs(found - NOISY.cosine) < 0.25, {"corrected_cosine": found, "true_cosine": NOISY.cosine}


def longer_by_noise(method: Callable[[], Combiner], longer: bool) -> Test:
    """Compare the squared length of the updates with the sum's, where every conflict is spurious."""

    def test(seed: int) -> tuple[bool, dict[str, float]]:
        problem = Problem(NOISY)
        ours, theirs = (descend(problem, m, lr=0.0, steps=STEPS, seed=seed) for m in (method(), Sum()))
        total = problem.slopes.sum(0)
        power = ours.power / theirs.power
        progress = float(ours.updates @ total) / float(theirs.updates @ total)
        numbers = {"power_over_sum": power, "progress_over_sum": progress}
        return power > 1.1 if longer else abs(power - 1) < 0.05, numbers

    return test


def noise_end(method: Callable[[], Combiner], better: bool) -> Test:
    """Descend a curved problem with spurious conflicts; compare the summed loss with the sum's, as a mean of 8 runs."""

    def test(seed: int) -> tuple[bool, dict[str, float]]:
        problem = Problem(Knobs(cosine=0.5, curvature=1.0, noise=20.0))
        ours, theirs = (
            sum(float(descend(problem, m(), lr=0.05, steps=100, seed=100 * seed + i).losses.sum()) for i in range(8))
            / 8
            for m in (method, Sum)
        )
        return (ours < theirs) == better, {"method": ours, "sum": theirs}

    return test
