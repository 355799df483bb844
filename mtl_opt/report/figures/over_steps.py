"""The figures over steps: learning curves, cosines of the task gradients, layers, shadow combiners."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from mtl_opt.report.figures.style import heatmap, looks, short

Data = Mapping[str, Any]


def curves(data: Data) -> Any:
    """Draw the training loss of every task, mean over seeds with their range."""
    from matplotlib import pyplot

    shown = {name: found["loss"] for name, found in data["curves"].items() if "loss" in found}
    tasks = [task for task in data["tasks"] if any(task in found for found in shown.values())]
    if not tasks:
        return None
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.1 * columns, 2.4 * rows), squeeze=False, sharex=True)
    look = looks(data)
    for axis in axes.flat[len(tasks) :]:
        axis.remove()
    for axis, task in zip(axes.flat, tasks, strict=False):
        for name, found in shown.items():
            curve = found.get(task)
            if curve is None:
                continue
            axis.plot(curve["x"], curve["mean"], linewidth=1.2, **look[name])
            if "low" in curve:
                axis.fill_between(curve["x"], curve["low"], curve["high"], color=look[name]["color"], alpha=0.12, lw=0)
        axis.set_title(short(task), fontsize=9)
        axis.set_xlabel("step")
    axes[0][0].set_ylabel("training loss")
    if len(shown) > 1:
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    figure.tight_layout()
    return figure


def cosines(data: Data) -> Any:
    """Draw raw and noise-corrected cosines of every pair over the steps of the first run."""
    from matplotlib import pyplot

    if not data["conflicts"]["runs"]:
        return None
    run = data["conflicts"]["runs"][0]
    pairs = list(combinations(run["tasks"], 2))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.1 * columns, 2.2 * rows), squeeze=False, sharex=True, sharey=True
    )
    for axis in axes.flat[len(pairs) :]:
        axis.remove()
    for p, (axis, pair) in enumerate(zip(axes.flat, pairs, strict=False)):
        axis.plot(run["steps"], hundredths(run["cosines"][p]), "--", color="#777777", linewidth=1, label="raw")
        if run.get("corrected"):
            found = {key: hundredths(run["corrected"][key][p]) for key in ("cosines", "low", "high")}
            axis.plot(run["steps"], found["cosines"], color="#0f6a8f", linewidth=1.6, label="noise-corrected")
            axis.fill_between(run["steps"], found["low"], found["high"], color="#0f6a8f", alpha=0.15, lw=0)
        axis.axhline(0, color="black", linewidth=0.7)
        axis.set_ylim(-1.03, 1.03)
        axis.set_title(" × ".join(short(task, 18) for task in pair), fontsize=8)
        axis.set_xlabel("step")
    axes[0][0].set_ylabel(f"cosine ({run['run']})")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    return figure


def hundredths(values: Any) -> list[float]:
    """Unpack cosines; NaN where there is none, which leaves a gap."""
    return [float("nan") if value is None else value / 100 for value in values]


def layers(data: Data) -> Any:
    """Draw the cosine of every layer over the steps of the first run that has layers, mean over the pairs."""
    run = next((run for run in data["conflicts"]["runs"] if run.get("layers")), None)
    if run is None:
        return None
    rows = []
    for index in range(len(run["layers"]["names"])):
        steps = zip(*(pair[index] for pair in run["layers"]["cosines"]), strict=True)
        rows.append([mean_or_none(values) for values in steps])
    names = [str(step) for step in run["steps"]]
    return heatmap(rows, run["layers"]["names"], names, 1, f"cosine, mean over pairs ({run['run']})", None)


def mean_or_none(hundredths: Any) -> float | None:
    """Average packed cosines; None where there is none."""
    numbers = [value for value in hundredths if value is not None]
    return sum(numbers) / len(numbers) / 100 if numbers else None


def shadows(data: Data) -> Any:
    """Draw the angle of every shadow combiner to the update taken, over the steps of the first run that has them."""
    from matplotlib import pyplot

    run = next((run for run in data["conflicts"]["runs"] if run.get("shadows")), None)
    known = {
        name: [angle for angle in shadow["angle"] if angle is not None]
        for name, shadow in (run["shadows"] if run else {}).items()
    }
    known = {name: angles for name, angles in known.items() if angles}
    if run is None or not known:
        return None
    order = sorted(known, key=lambda name: -sum(known[name]) / len(known[name]))
    figure, axis = pyplot.subplots(figsize=(5.5, 0.8 + 0.2 * len(order)))
    for place, name in enumerate(order):
        angles = known[name]
        axis.plot([min(angles), max(angles)], [place, place], color="#cccccc", linewidth=4, solid_capstyle="round")
        axis.plot(sum(angles) / len(angles), place, "o", color="#0f6a8f", markersize=4.5)
    axis.set_yticks(range(len(order)), [f"{n} †" if run["shadows"][n]["on_this_trajectory"] else n for n in order])
    axis.set_xlabel(f"angle to the update taken, degrees ({run['run']}); † stateful, on this trajectory")
    axis.set_xlim(left=0)
    return figure
