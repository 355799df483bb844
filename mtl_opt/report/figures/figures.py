"""The figures of a report as PNG and PDF for papers; needs matplotlib, which only these figures need."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.report.figures.over_steps import cosines, curves, layers, shadows
from mtl_opt.report.figures.style import heatmap, looks, short, style

FOLDER = "plots"

Data = Mapping[str, Any]


def write_plots(data: Data, folder: Path) -> list[Path]:
    """Draw every figure that the data allows."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            "`--plots` needs matplotlib, which is not installed: `pip install mtl_opt[plots]`; report.html needs none."
        ) from error
    figures: list[tuple[str, Callable[[Data], Any]]] = [
        ("scores", scores), ("tasks", tasks_over_methods), ("changes", changes), ("curves", curves),
        ("cosines", cosines), ("layers", layers), ("shadows", shadows),
    ]  # fmt: skip
    found = []
    with matplotlib.rc_context(style(str(data["tasks"]) + str([m["label"] for m in data["methods"]]))):
        for name, draw in figures:
            figure = draw(data)
            if figure is not None:
                found += saved(figure, folder / FOLDER, name)
    return found


def saved(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write a figure and close it."""
    from matplotlib import pyplot

    paths = [folder / f"{name}.{kind}" for kind in ("png", "pdf")]
    try:
        folder.mkdir(exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box: no reason to stop
            for path in paths:
                figure.savefig(
                    path,
                    dpi=200,
                    bbox_inches="tight",
                    metadata={"CreationDate": None} if path.suffix == ".pdf" else None,
                )
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written ({error.strerror}).") from error
    finally:
        pyplot.close(figure)
    return paths


def scores(data: Data) -> Any:
    """Draw the score of every method with its interval, best on top."""
    from matplotlib import pyplot

    summary = data["summary"]
    known = {n: s for n, s in (summary or {"scores": {}})["scores"].items() if s["mean"] is not None}
    if not known:
        return None
    order = sorted(known, key=lambda name: known[name]["mean"])
    look = looks(data)
    figure, axis = pyplot.subplots(figsize=(5.5, 0.8 + 0.26 * len(order)))
    for place, name in enumerate(order):
        score, colour = known[name], look[name]["color"]
        if score["low"] is not None:
            axis.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=2)
        axis.plot([v for v in score["values"] if v is not None], [place] * sum(v is not None for v in score["values"]),
                  "o", color=colour, markersize=2.5, alpha=0.4)  # fmt: skip
        axis.plot(score["mean"], place, "o", color=colour, markersize=5.5)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(order)), [short(name) for name in order])
    axis.set_xlabel(summary["score_name"])
    return figure


def tasks_over_methods(data: Data) -> Any:
    """Draw parallel coordinates: one axis per task, better is up."""
    from matplotlib import pyplot

    summary = data["summary"]
    if summary is None or not summary["methods"] or len(summary["tasks"]) < 2:
        return None
    shown = [*summary["methods"], *([summary["baselines"]] if summary["baselines"] else [])]
    columns = []
    for task in summary["tasks"]:
        metric = summary["main_metric"][task]
        column = [(method["scores"].get(task, {}).get(metric) or {}).get("mean") for method in shown]
        numbers = [value for value in column if value is not None] or [0.0]
        columns.append((task, metric, summary["directions"].get(metric, True), column, min(numbers), max(numbers)))
    figure, axis = pyplot.subplots(figsize=(1.6 + 1.2 * len(columns), 3))
    look = looks(data)
    for index, method in enumerate(shown):
        heights = [
            None if (value := column[index]) is None else place_of(value, low, high, up)
            for _, _, up, column, low, high in columns
        ]
        points = [(x, y) for x, y in enumerate(heights) if y is not None]
        axis.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3.5, **look[method["method"]])
    for x, (_, _, up, _, low, high) in enumerate(columns):
        axis.annotate(f"{high if up else low:.3g}", (x, 1), (3, 4), textcoords="offset points", fontsize=7)
        axis.annotate(f"{low if up else high:.3g}", (x, 0), (3, -9), textcoords="offset points", fontsize=7)
    labels = [f"{short(task, 16)}\n{metric}{'' if up else ' (lower is better)'}" for task, metric, up, *_ in columns]
    axis.set_xticks(range(len(columns)), labels)
    axis.set_yticks([])
    axis.set_ylim(-0.1, 1.1)
    figure.legend(loc="center left", bbox_to_anchor=(0.92, 0.5), fontsize=7)
    return figure


def place_of(value: float, low: float, high: float, up: bool) -> float:
    """Place a value on an axis from 0 (worst) to 1 (best)."""
    share = 0.5 if high == low else (value - low) / (high - low)
    return share if up else 1 - share


def changes(data: Data) -> Any:
    """Draw method by task the change against the single-task baselines."""
    summary = data["summary"]
    if summary is None or not summary["baselines"] or not summary["methods"]:
        return None
    rows = [
        [(method["changes"].get(task) or {}).get("mean") for task in summary["tasks"]] for method in summary["methods"]
    ]
    limit = max((abs(value) for row in rows for value in row if value is not None), default=1) or 1
    names = [method["method"] for method in summary["methods"]]
    return heatmap(rows, names, summary["tasks"], limit, "change against single-task, %", "{:+.1f}")
