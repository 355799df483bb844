"""Projections, shortest points and Krum on explicit gradient vectors, by trying every set of tasks."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np


def subsets(num_tasks: int) -> Iterator[list[int]]:
    """Give every set of tasks, the empty one first."""
    for size in range(num_tasks + 1):
        yield from (list(chosen) for chosen in combinations(range(num_tasks), size))


def project(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:  # [tasks, params], [params] -> [params]
    """Find the closest vector whose inner product with no row is negative: it touches some set of constraints."""
    best, lengths = None, np.linalg.norm(rows, axis=1)
    for touched in subsets(len(rows)):
        normal = (rows / np.where(lengths > 0, lengths, 1)[:, None])[touched]
        candidate = vector - np.linalg.pinv(normal, rcond=1e-12) @ (normal @ vector)
        allowed = (rows @ candidate >= -1e-9 * lengths * np.linalg.norm(vector)).all()
        if allowed and (best is None or np.linalg.norm(candidate - vector) < np.linalg.norm(best - vector)):
            best = candidate
    return best


def upgrad(rows: np.ndarray) -> np.ndarray:  # [tasks, params] -> [params]
    """Average the projections of all rows."""
    return sum(project(rows, row) for row in rows) / len(rows)


def shortest_in_hull(rows: np.ndarray) -> np.ndarray:  # [tasks, params] -> [params]
    """Find the shortest vector of the convex hull: the shortest one of the affine hull of some set of rows."""
    best = None
    for face in subsets(len(rows)):
        if not face:
            continue
        edges = rows[face[1:]] - rows[face[0]]
        steps = -np.linalg.pinv(edges.T) @ rows[face[0]] if len(edges) else np.zeros(0)
        shares = np.concatenate([[1 - steps.sum()], steps])
        candidate = shares @ rows[face]
        if shares.min() >= -1e-12 and (best is None or np.linalg.norm(candidate) < np.linalg.norm(best)):
            best = candidate
    return best


def krum(rows: np.ndarray, num_byzantine: int, num_selected: int) -> np.ndarray:  # [tasks, params] -> [params]
    """Average the rows with the smallest sums of squared distances to their closest others, as in section 4."""
    scores = []
    for i, row in enumerate(rows):
        distances = sorted(float(np.square(row - other).sum()) for j, other in enumerate(rows) if j != i)
        scores.append(sum(distances[: len(rows) - num_byzantine - 2]))
    return rows[np.argsort(scores, kind="stable")[:num_selected]].mean(0)
