"""TorchJD's three convex problems of two losses over two parameters, and the distance to their Pareto sets.

    elementwise   f(x) = (x1², x2²)
    quadratic     f_i(x) = (x − u_i)ᵀ A_i (x − u_i)
    homogeneous   the same with A_2 = 10 A_1: the two losses differ in scale only

Where every A is positive definite the Pareto set is the curve of the minimisers of w f1 + (1 − w) f2:
x(w) = (w A_1 + (1 − w) A_2)⁻¹ (w A_1 u_1 + (1 − w) A_2 u_2).
"""

from dataclasses import dataclass, field

import numpy as np

from experiments.toy_pareto.descent import Descent, descend
from mtl_opt import COMBINERS

POINTS = 2001
"""Points that the Pareto set is drawn through."""


@dataclass(frozen=True)
class Convex:
    """Describe a problem.

    Attributes:
        matrices: A of each task. `[tasks, params, params]`
        optima: u of each task. `[tasks, params]`
        lr: Learning rate of gradient descent.
        steps: Its steps.
        inits: Starting points. `[runs, params]`
        lr_factors: Factors of the learning rate for combiners whose scale differs, by name.
    """

    matrices: np.ndarray
    optima: np.ndarray
    lr: float
    steps: int
    inits: np.ndarray
    lr_factors: dict[str, float] = field(default_factory=dict)

    def losses_and_jacobian(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute both losses and their gradients."""
        from_optimum = points[:, None] - self.optima  # [runs, tasks, params]
        pulled = np.einsum("tpq,rtq->rtp", self.matrices, from_optimum)
        return (from_optimum * pulled).sum(-1), 2 * pulled

    def pareto_set(self) -> np.ndarray:
        """Draw the Pareto set."""
        share = np.linspace(1e-6, 1 - 1e-6, POINTS)
        weights = np.stack([share, 1 - share], 1)
        mixed = np.einsum("wt,tpq->wpq", weights, self.matrices)
        wanted = np.einsum("wt,tpq,tq->wp", weights, self.matrices, self.optima)
        return np.linalg.solve(mixed, wanted[..., None])[..., 0]

    def distance(self, points: np.ndarray) -> np.ndarray:  # [runs, params] -> [runs]
        """Measure how far points are from the Pareto set."""
        curve = self.pareto_set()
        return np.linalg.norm(points[:, None] - curve, axis=-1).min(1)


MATRIX = np.array([[2.0, -1.0], [-1.0, 2.0]])
FACTORS = {"upgrad": 1.0, "mgda": 2.0, "cagrad": 1.0, "nash_mtl": 2.0, "graddrop": 0.5, "imtl_g": 1.0}
FACTORS |= {"weighted": 0.5, "aligned_mtl": 4.0, "dualproj": 1.0, "pcgrad": 0.5, "rlw": 1.0, "mean": 1.0}

CONVEX = {
    "elementwise": Convex(
        matrices=np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]),
        optima=np.zeros((2, 2)),
        lr=0.075,
        steps=50,
        inits=np.array([[3.0, -2.0], [0.0, -3.0], [-4.0, 4.0], [-3.0, 4.0], [-3.5, -0.75]]),
        lr_factors=FACTORS,
    ),
    "quadratic": Convex(
        matrices=np.array([[[1.0, 0.2], [0.2, 0.05]], [[3.0, -0.6], [-0.6, 0.2]]]),
        optima=np.array([[1.0, 0.0], [-1.0, 0.0]]),
        lr=0.125,
        steps=200,
        inits=np.array([[0.5, 0.5], [-0.3, 7.0], [0.0, 0.0]]),
        lr_factors=FACTORS | {"nash_mtl": 0.5},
    ),
    "homogeneous": Convex(
        matrices=np.stack([MATRIX, 10 * MATRIX]),
        optima=np.array([[1.0, 0.0], [-10.0, 0.0]]),
        lr=0.005,
        steps=100,
        inits=np.array([[-6.0, 4.0], [-3.0, -1.5], [1.5, 2.0], [2.5, 5.5]]),
        lr_factors=FACTORS | {"nash_mtl": 20.0, "imtl_g": 2.0},
    ),
}


def convex(name: str, problem_name: str) -> Descent:
    """Descend a convex problem with a combiner, from all its starting points."""
    problem = CONVEX[problem_name]
    by_scale = 0.5 if COMBINERS[name].scale == "sum" else 1.0  # two tasks: a sum is twice a mean
    combiners = [COMBINERS[name]() for _ in problem.inits]
    lr = problem.lr * problem.lr_factors.get(name, by_scale)
    return descend(problem.losses_and_jacobian, problem.inits, combiners, problem.steps, lr=lr)
