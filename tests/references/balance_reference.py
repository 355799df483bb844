"""IMTL-G, ConFIG, Aligned-MTL, PCD and one-sided projection on explicit gradient vectors."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize


def imtl_g(gradients: np.ndarray) -> np.ndarray:  # [tasks, params] -> [params]
    """Solve `(g_1 - g_i) U' = 0` for the weights of tasks 2..m, as the closed form of Liu et al. 2021."""
    units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    differences, unit_differences = gradients[0] - gradients[1:], units[0] - units[1:]
    others = np.linalg.solve((differences @ unit_differences.T).T, unit_differences @ gradients[0])
    return np.concatenate([[1 - others.sum()], others]) @ gradients


def config(gradients: np.ndarray, preference: np.ndarray) -> np.ndarray:  # [tasks, params], [tasks] -> [params]
    """Take the Moore–Penrose inverse of the unit rows."""
    units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    direction = np.linalg.pinv(units) @ preference
    direction /= np.linalg.norm(direction)
    return (gradients @ direction).sum() * direction


def aligned(gradients: np.ndarray, scale_mode: str) -> np.ndarray:  # [tasks, params] -> [params]
    """Give all singular values of the gradients one size and take the mean of the rows."""
    left, values, right = np.linalg.svd(gradients, full_matrices=False)
    common = {
        "min": values.min(),
        "median": np.sort(values)[(len(values) - 1) // 2],
        "rmse": np.sqrt((values**2).mean()),
    }[scale_mode]
    return (common * left @ right).mean(0)


def pcd(gradients: np.ndarray, norms: np.ndarray, tau: float) -> np.ndarray:  # [tasks, params], [tasks] -> [params]
    """Solve the quadratic programme in the parameters with a general solver; task 0 is the primary one."""
    scaled = gradients / norms[:, None]
    bounds = tau * (scaled[1:] ** 2).sum(1)
    found = minimize(
        lambda d: 0.5 * ((d - scaled[0]) ** 2).sum(),
        scaled[0],
        jac=lambda d: d - scaled[0],
        constraints={"type": "ineq", "fun": lambda d: scaled[1:] @ d - bounds, "jac": lambda _: scaled[1:]},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    ).x
    return found * np.linalg.norm(gradients[0]) / np.linalg.norm(found)


def one_sided(gradients: np.ndarray, main: Sequence[int]) -> np.ndarray:  # [tasks, params] -> [params]
    """Project every other gradient onto the cone of no conflict with the main ones, by Dykstra's alternating steps."""
    total = gradients[list(main)].sum(0)
    for i in set(range(len(gradients))) - set(main):
        point, corrections = gradients[i].copy(), [np.zeros_like(gradients[i]) for _ in main]
        for _ in range(5000):
            for k, j in enumerate(main):
                moved = point + corrections[k]
                lacking = min(moved @ gradients[j], 0.0) / (gradients[j] @ gradients[j])
                point = moved - lacking * gradients[j]
                corrections[k] = moved - point
        total = total + point
    return total
