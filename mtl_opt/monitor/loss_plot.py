"""`plot_loss`: the losses of a run as PNG, all tasks in one figure and one figure per task."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_opt.monitor.fonts import OWN_FAMILY, font_families, missing_glyphs_as_boxes
from mtl_opt.results import parse_json_line

FILE = "training_loss.png"

Curve = tuple[list[int], list[float]]


def plot_losses(log: Path, tasks: Sequence[str]) -> list[Path]:
    """Draw the losses of a run beside its log."""
    rows = [row for row in map(parse_json_line, log.read_bytes().splitlines()) if row is not None]
    curves = {task: curve(rows, f"loss_{task}") for task in tasks}
    written = []
    if mean := curve(rows, "loss"):
        shown = {"mean": mean, **{task: found for task, found in curves.items() if found}}
        written.append(_draw(log.with_name(FILE), "training loss", shown if len(tasks) > 1 else {"mean": mean}))
    for task, found in curves.items():
        if found:
            held_out = curve(rows, f"eval_{task}_loss")
            shown = {"training": found, **({"held out": held_out} if held_out else {})}
            written.append(_draw(log.with_name(f"training_loss_{file_name(task)}.png"), task, shown))
    return written


def curve(rows: Sequence[Mapping[str, Any]], key: str) -> Curve | None:
    """Read one curve of a log."""
    points = [(row["current_steps"], row[key]) for row in rows if key in row]
    return ([step for step, _ in points], [value for _, value in points]) if points else None


def file_name(task: str) -> str:
    """Make a task's name part of a file name."""
    return re.sub(r'[\\/:*?"<>|]', "_", task)


def _draw(path: Path, title: str, curves: Mapping[str, Curve]) -> Path:
    """Draw curves into a PNG; with a canvas of its own, so that no window system is asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families = list(font_families("".join((title, *curves))) or (OWN_FAMILY,))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, (steps, values) in curves.items():
        style = {"color": "black", "linewidth": 2} if name == "mean" else {"linewidth": 1.2}
        axes.plot(steps, values, label=name, marker="." if len(steps) < 30 else None, **style)
    axes.set_title(title, fontfamily=families)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend(prop={"family": families})
    with missing_glyphs_as_boxes():
        FigureCanvasAgg(figure).print_png(path)
    return path
