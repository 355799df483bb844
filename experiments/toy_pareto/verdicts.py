"""What the toys are said to show, as sentences that a run finds true or false."""

from collections.abc import Iterable, Mapping

import numpy as np

from experiments.toy_pareto.convex import CONVEX
from experiments.toy_pareto.descent import Descent
from experiments.toy_pareto.two_tasks import PARETO_X2

Found = Mapping[str, Mapping[str, Descent]]
"""What became of each combiner, by setting."""

REACHING = ("mean", "pcgrad", "gradvac", "upgrad", "dualproj", "cagrad", "nash_mtl")

NEEDED = {
    "famo": ("famo",),
    "cagrad": ("cagrad", "sum"),
    "nash": ("nash_mtl", "imtl_g"),
    "nash_corner": ("sum",),
    "elementwise": (*REACHING, "mgda"),
    "quadratic": REACHING,
    "homogeneous": REACHING,
}
"""The combiners that the robust verdicts ask about, by setting."""


def on_pareto_set(points: np.ndarray) -> np.ndarray:  # [runs, 2] -> [runs]
    """Tell which points of the two-task toy lie on its Pareto set.

    The set moves a little with the scale of the losses; a run that is stuck ends above x2 = 0.
    """
    return (np.abs(points[:, 1] - PARETO_X2) < 0.15) & (np.abs(points[:, 0]) < 7.05)


def stuck(points: np.ndarray) -> np.ndarray:  # [runs, 2] -> [runs]
    """Tell which points are still in the upper half, where no Pareto point is."""
    return points[:, 1] > 0.2


def robust(found: Found) -> dict[str, bool]:
    """Judge the published claims that hold whatever the details of an implementation, and those of convex problems."""
    cagrad, nash, famo = found["cagrad"], found["nash"], found["famo"]
    corner = found["nash_corner"]["sum"]
    centre = np.array([0.0, PARETO_X2])
    return {
        "CAGrad setting: the sum is stuck from (-8.5, 7.5) and (9, 9)": bool(stuck(cagrad["sum"].points)[[0, 2]].all()),
        "CAGrad setting: the sum reaches the Pareto set from (-8.5, -5)": bool(on_pareto_set(cagrad["sum"].points)[1]),
        "CAGrad setting: CAGrad reaches (0, -8.355) from all three points": bool(
            (np.abs(cagrad["cagrad"].points - centre) < 0.05).all()
        ),
        "Nash setting: the sum is stuck from (9, 9)": bool(stuck(corner.points).all()),
        "Nash setting: Nash-MTL and IMTL-G reach the Pareto set from all five points": bool(
            all(on_pareto_set(nash[name].points).all() for name in ("nash_mtl", "imtl_g"))
        ),
        "FAMO setting: FAMO ends on the Pareto set with |x1| < 2 from all five points": bool(
            on_pareto_set(famo["famo"].points).all() and (np.abs(famo["famo"].points[:, 0]) < 2).all()
        ),
        **_convex(found),
    }


def _convex(found: Found) -> dict[str, bool]:
    """Judge what the convex problems show."""
    reached = {name: all(reaches(found[p][name], p) for p in CONVEX) for name in REACHING}
    mgda, mean = found["elementwise"]["mgda"].points, found["homogeneous"]["mean"].points
    nash, upgrad = found["homogeneous"]["nash_mtl"].points, found["homogeneous"]["upgrad"].points
    return {
        f"Convex problems: {', '.join(REACHING)} come within 5 % of the first distance to the Pareto set": all(
            reached.values()
        ),
        "Elementwise squares: MGDA stays at (0, -3), where one gradient is 0, and the mean does not": bool(
            np.allclose(mgda[1], [0, -3]) and np.abs(found["elementwise"]["mean"].points[1]).max() < 0.1
        ),
        "Losses of scales 1 and 10: the mean ends near the optimum of the large one from every point": bool(
            (np.abs(mean[:, 0] + 9) < 0.2).all()
        ),
        "Losses of scales 1 and 10: Nash-MTL and UPGrad end where they met the set, far apart": bool(
            np.ptp(nash[:, 0]) > 4 and np.ptp(upgrad[:, 0]) > 4
        ),
    }


def reaches(descent: Descent, problem_name: str) -> bool:
    """Tell whether every run came within 5 % of its first distance to the Pareto set."""
    problem = CONVEX[problem_name]
    return bool((problem.distance(descent.points) <= 0.05 * problem.distance(problem.inits)).all())


def of_published_figures(found: Found) -> dict[str, bool]:
    """Judge claims that hold in the published settings but may flip with the budget of steps."""
    cagrad, nash, aligned = found["cagrad"], found["nash"], found["aligned"]
    top = 2  # (9, 9)

    def all_reach(of: Mapping[str, Descent], names: Iterable[str]) -> bool:
        return bool(all(on_pareto_set(of[name].points).all() for name in names))

    return {
        "CAGrad setting: MGDA, PCGrad, Nash-MTL, Aligned-MTL and DualProj reach the set from all three points": (
            all_reach(cagrad, ("mgda", "pcgrad", "nash_mtl", "aligned_mtl", "dualproj"))
        ),
        "Nash setting: PCGrad, CAGrad, Aligned-MTL and DualProj are stuck from (9, 9)": bool(
            all(stuck(nash[name].points)[top] for name in ("pcgrad", "cagrad", "aligned_mtl", "dualproj"))
        ),
        "Nash setting: MGDA reaches the set everywhere, at |x1| > 4 from four of five points": bool(
            on_pareto_set(nash["mgda"].points).all() and (np.abs(nash["mgda"].points[:, 0]) > 4).sum() >= 4
        ),
        "Aligned setting: Aligned-MTL ends within 0.1 of (0, -8.33) from all five points": bool(
            (np.abs(aligned["aligned_mtl"].points - [0.0, -8.33]) < 0.1).all()
        ),
        "Aligned setting: MGDA, IMTL-G and Nash-MTL reach the set from all five points": all_reach(
            aligned, ("mgda", "imtl_g", "nash_mtl")
        ),
    }
