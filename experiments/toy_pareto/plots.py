"""Draw trajectories: one picture per setting, one panel per combiner. Needs matplotlib, which is optional."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.toy_pareto.convex import CONVEX
from experiments.toy_pareto.descent import Descent
from experiments.toy_pareto.two_tasks import PARETO_X2, VARIANTS, losses_and_jacobian

COLUMNS = 5
GRID = 120


def draw(setting: str, found: Mapping[str, Descent], path: Path) -> bool:
    """Draw what became of every combiner in one setting."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(2.2 * COLUMNS, 2.3 * rows), layout="constrained", dpi=70)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).flat
    for axis, (name, descent) in zip(axes, found.items(), strict=False):
        _panel(axis, setting, descent)
        axis.set_title(name, fontsize=9)
    for axis in list(axes)[len(found) :]:
        axis.set_axis_off()
    figure.savefig(path)
    return True


def _panel(axis: Any, setting: str, descent: Descent) -> None:
    """Draw the runs of one combiner over the levels of the summed loss."""
    toy = setting in VARIANTS
    limits = ((-10, 10), (-10, 10)) if toy else _limits(setting)
    x1, x2 = np.meshgrid(*(np.linspace(*limit, GRID) for limit in limits))
    points = np.stack([x1.ravel(), x2.ravel()], 1)
    losses = (
        losses_and_jacobian(points, VARIANTS[setting].scale) if toy else CONVEX[setting].losses_and_jacobian(points)
    )[0]
    axis.contour(x1, x2, losses.sum(1).reshape(x1.shape), levels=14, linewidths=0.4, colors="0.75")
    pareto = np.array([[-7, PARETO_X2], [7, PARETO_X2]]) if toy else CONVEX[setting].pareto_set()
    axis.plot(pareto[:, 0], pareto[:, 1], color="0.3", linewidth=2.5)
    for path in descent.paths:
        inside = path[np.isfinite(path).all(1) & (np.abs(path) < 1e3).all(1)]
        axis.plot(inside[:, 0], inside[:, 1], linewidth=1)
        axis.plot(*inside[0], "o", color="black", markersize=2.5)
        axis.plot(*inside[-1], "*", color="tab:red", markersize=6)
    axis.set_xlim(*limits[0])
    axis.set_ylim(*limits[1])
    axis.tick_params(labelsize=6)


def _limits(setting: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Frame the starting points and the Pareto set of a convex problem."""
    shown = np.concatenate([CONVEX[setting].inits, CONVEX[setting].pareto_set()])
    low, high = shown.min(0) - 0.7, shown.max(0) + 0.7
    return (low[0], high[0]), (low[1], high[1])
