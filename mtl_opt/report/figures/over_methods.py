"""The figures that compare methods: scores, tasks side by side, changes against the single-task baselines."""

from collections.abc import Mapping
from typing import Any

from mtl_opt.report.figures.style import line_styles, matrix_figure, new_figure, truncate

Data = Mapping[str, Any]


def score_figure(data: Data) -> Any:
    """Draw the score of every method with its interval, the best on top."""
    summary = data["summary"]
    known = {n: s for n, s in (summary or {"scores": {}})["scores"].items() if s["mean"] is not None}
    if not known:
        return None
    order = sorted(known, key=lambda name: known[name]["mean"])
    styles = line_styles(data)
    figure, axis = new_figure(5.5, 0.8 + 0.26 * len(order))
    for place, name in enumerate(order):
        score, colour = known[name], styles[name]["color"]
        if score["low"] is not None:
            axis.plot([score["low"], score["high"]], [place, place], color=colour, linewidth=2)
        seeds = [value for value in score["values"] if value is not None]
        axis.plot(seeds, [place] * len(seeds), "o", color=colour, markersize=2.5, alpha=0.4)
        axis.plot(score["mean"], place, "o", color=colour, markersize=5.5)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(order)), [truncate(name) for name in order])
    axis.set_xlabel(summary["score_name"])
    return figure


def task_figure(data: Data) -> Any:
    """Draw parallel coordinates: one axis per task, better is up."""
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
    figure, axis = new_figure(1.6 + 1.2 * len(columns), 3)
    styles = line_styles(data)
    for index, method in enumerate(shown):
        heights = [
            None if (value := column[index]) is None else axis_height(value, low, high, up)
            for _, _, up, column, low, high in columns
        ]
        points = [(x, y) for x, y in enumerate(heights) if y is not None]
        axis.plot(
            [x for x, _ in points], [y for _, y in points], marker="o", markersize=3.5, **styles[method["method"]]
        )
    for x, (_, _, up, _, low, high) in enumerate(columns):
        axis.annotate(f"{high if up else low:.3g}", (x, 1), (3, 4), textcoords="offset points", fontsize=7)
        axis.annotate(f"{low if up else high:.3g}", (x, 0), (3, -9), textcoords="offset points", fontsize=7)
    labels = [f"{truncate(task, 16)}\n{metric}{'' if up else ' (lower is better)'}" for task, metric, up, *_ in columns]
    axis.set_xticks(range(len(columns)), labels)
    axis.set_yticks([])
    axis.set_ylim(-0.1, 1.1)
    figure.legend(loc="center left", bbox_to_anchor=(0.92, 0.5), fontsize=7)
    return figure


def axis_height(value: float, low: float, high: float, up: bool) -> float:
    """Place a value on an axis from 0 (worst) to 1 (best)."""
    share = 0.5 if high == low else (value - low) / (high - low)
    return share if up else 1 - share


def change_figure(data: Data) -> Any:
    """Draw the change against the single-task baselines, methods × tasks."""
    summary = data["summary"]
    if summary is None or not summary["baselines"] or not summary["methods"]:
        return None
    rows = [
        [(method["changes"].get(task) or {}).get("mean") for task in summary["tasks"]] for method in summary["methods"]
    ]
    limit = max((abs(value) for row in rows for value in row if value is not None), default=1) or 1
    names = [method["method"] for method in summary["methods"]]
    return matrix_figure(rows, names, summary["tasks"], limit, "change against single-task, %", "{:+.1f}")
