"""The figures over steps: learning curves, cosines of the task gradients, layers, shadow combiners."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from mtl_opt.report.figures.style import line_styles, matrix_figure, new_figure, panels, truncate

Data = Mapping[str, Any]

BLUE, GREY = "#0f6a8f", "#777777"


def curve_figure(data: Data) -> Any:
    """Draw the training loss of every task, mean over seeds with their range."""
    shown = {name: found["loss"] for name, found in data["curves"].items() if "loss" in found}
    tasks = [task for task in data["tasks"] if any(task in found for found in shown.values())]
    if not tasks:
        return None
    figure, axes = panels(len(tasks), 2.4)
    styles = line_styles(data)
    for axis, task in zip(axes, tasks, strict=True):
        for name, found in shown.items():
            curve = found.get(task)
            if curve is None:
                continue
            axis.plot(curve["x"], curve["mean"], linewidth=1.2, **styles[name])
            if "low" in curve:
                axis.fill_between(
                    curve["x"], curve["low"], curve["high"], color=styles[name]["color"], alpha=0.12, lw=0
                )
        axis.set_title(truncate(task), fontsize=9)
        axis.set_xlabel("step")
    axes[0].set_ylabel("training loss")
    if len(shown) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    figure.tight_layout()
    return figure


def cosine_figure(data: Data) -> Any:
    """Draw raw and noise-corrected cosines of every pair over the steps of the first run."""
    if not data["conflicts"]["runs"]:
        return None
    run = data["conflicts"]["runs"][0]
    pairs = list(combinations(run["tasks"], 2))
    figure, axes = panels(len(pairs), 2.2, sharey=True)
    for p, (axis, pair) in enumerate(zip(axes, pairs, strict=True)):
        axis.plot(run["steps"], unpack_cosines(run["cosines"][p]), "--", color=GREY, linewidth=1, label="raw")
        if run.get("corrected"):
            mean, low, high = (unpack_cosines(run["corrected"][key][p]) for key in ("cosines", "low", "high"))
            axis.plot(run["steps"], mean, color=BLUE, linewidth=1.6, label="noise-corrected")
            axis.fill_between(run["steps"], low, high, color=BLUE, alpha=0.15, lw=0)
        axis.axhline(0, color="black", linewidth=0.7)
        axis.set_ylim(-1.03, 1.03)
        axis.set_title(" × ".join(truncate(task, 18) for task in pair), fontsize=8)
        axis.set_xlabel("step")
    axes[0].set_ylabel(f"cosine ({run['run']})")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    return figure


def unpack_cosines(hundredths: Sequence[int | None]) -> list[float]:
    """Unpack cosines; NaN where there is none, which leaves a gap in a line."""
    return [float("nan") if value is None else value / 100 for value in hundredths]


def layer_figure(data: Data) -> Any:
    """Draw the cosine of every layer over the steps of the first run that has layers, mean over the pairs."""
    run = next((run for run in data["conflicts"]["runs"] if run.get("layers")), None)
    if run is None:
        return None
    rows = []
    for index in range(len(run["layers"]["names"])):
        steps = zip(*(pair[index] for pair in run["layers"]["cosines"]), strict=True)
        rows.append([mean_cosine(values) for values in steps])
    names = [str(step) for step in run["steps"]]
    return matrix_figure(rows, run["layers"]["names"], names, 1, f"cosine, mean over pairs ({run['run']})", None)


def mean_cosine(hundredths: Iterable[int | None]) -> float | None:
    """Average packed cosines; None where there is none."""
    numbers = [value for value in hundredths if value is not None]
    return sum(numbers) / len(numbers) / 100 if numbers else None


def shadow_figure(data: Data) -> Any:
    """Draw the angle of every shadow combiner to the update taken, over the steps of the first run that has them."""
    run = next((run for run in data["conflicts"]["runs"] if run.get("shadows")), None)
    if run is None:
        return None
    angles = {
        name: [angle for angle in shadow["angle"] if angle is not None] for name, shadow in run["shadows"].items()
    }
    order = sorted((name for name in angles if angles[name]), key=lambda name: -fmean(angles[name]))
    if not order:
        return None
    figure, axis = new_figure(5.5, 0.8 + 0.2 * len(order))
    for place, name in enumerate(order):
        ends = [min(angles[name]), max(angles[name])]
        axis.plot(ends, [place, place], color="#cccccc", linewidth=4, solid_capstyle="round")
        axis.plot(fmean(angles[name]), place, "o", color=BLUE, markersize=4.5)
    axis.set_yticks(range(len(order)), [f"{n} †" if run["shadows"][n]["on_this_trajectory"] else n for n in order])
    axis.set_xlabel(f"angle to the update taken, degrees ({run['run']}); † stateful, on this trajectory")
    axis.set_xlim(left=0)
    return figure
