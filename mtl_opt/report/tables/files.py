"""The tables of a comparison as files beside `results.jsonl`: text, Markdown, LaTeX, CSV, and the summary as JSON."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from mtl_opt.report.summary.assembly import summarise
from mtl_opt.report.summary.numbers import Score, Summary
from mtl_opt.report.tables.layout import Column, Results, lay_out
from mtl_opt.report.tables.text import comparison_markdown, comparison_table, trained_methods

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "Δ": r"$\Delta$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "▼": r"$\downarrow$", "▲": r"$\uparrow$",
    "–": "--", "−": "$-$", "≤": r"$\le$",
}  # fmt: skip
HEADER = ("method", "task", "metric", "higher_is_better", "mean", "std", "low", "high", "seeds", "not_finite")


def write_tables(folder: Path, results: Results) -> list[Path]:
    """Write all forms of the tables; a file that says the same already is left alone.

    Args:
        folder: Where `results.jsonl` is.
        results: Its lines, or their `Summary` where it is there already.

    Returns:
        `results.txt`, `results.md`, `results.tex`, `results.csv`, `summary.json`.
    """
    summary = results if isinstance(results, Summary) else summarise(results)
    texts = {
        "results.txt": comparison_table(summary) + "\n",
        "results.md": comparison_markdown(summary) + "\n",
        "results.tex": comparison_latex(summary),
        "results.csv": comparison_csv(summary),
        "summary.json": json.dumps(asdict(summary), ensure_ascii=False, indent=1, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != text.encode():
            partial = path.with_name(f"{name}.partial")
            partial.write_bytes(text.encode())
            os.replace(partial, path)
    return [folder / name for name in texts]


def comparison_latex(summary: Summary) -> str:
    """Write the comparison as LaTeX."""
    table = lay_out(summary)
    lines = [f"% {note}" for note in [*table.notes, *table.verdicts]]
    lines += _tabular(table.methods, table.columns)
    if table.transfer:
        lines += ["", "% Change against the single-task baselines, %."]
        lines += _tabular(trained_methods(table), table.transfer)
    return "\n".join(lines) + "\n"


def _tabular(names: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Write columns as a tabular with a line of groups above the names."""
    groups = [(group, len(list(part))) for group, part in groupby(columns, key=lambda column: column.group)]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule"]
    if any(group for group, _ in groups):
        heads = [rf"\multicolumn{{{size}}}{{c}}{{{escape(group)}}}" for group, size in groups]
        lines.append(" & ".join(["", *heads]) + r" \\")
    lines += [" & ".join(["method", *(escape(column.name) for column in columns)]) + r" \\", r"\midrule"]
    for index, name in enumerate(names):
        lines.append(" & ".join([escape(name), *(escape(column.cells[index]) for column in columns)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def escape(text: str) -> str:
    r"""Write a text so that LaTeX shows it.

    Examples:
        >>> print(escape("f1_macro % ± 1"))
        f1\_macro \% $\pm$ 1
    """
    return "".join(ESCAPES.get(char, char) for char in text)


def comparison_csv(summary: Summary) -> str:
    """Write the numbers behind the tables, one row per method, task and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_csv_rows(summary))
    return out.getvalue()


def _csv_rows(summary: Summary) -> Iterator[list[Any]]:
    """List the rows of the CSV."""
    for method in [*summary.methods, *([summary.baselines] if summary.baselines else [])]:
        for task in summary.tasks:
            for metric, score in method.scores.get(task, {}).items():
                yield _csv_row(method.method, task, metric, summary.directions.get(metric, True), score)
            yield _csv_row(method.method, task, "change_percent", True, method.changes[task])
        overall = {"delta_m_percent": method.delta_m, "delta_m_loss_percent": method.delta_m_loss}
        for name, score in overall.items():
            yield _csv_row(method.method, "", name, True, score)
        if method.mean_rank is not None:
            yield [method.method, "", "mean_rank", False, method.mean_rank, "", "", "", "", 0]
        for kind in ("macro", "micro"):
            for metric, score in getattr(method, kind).items():
                yield _csv_row(method.method, "", f"{kind}_{metric}", summary.directions.get(metric, True), score)
        for name, score in method.costs.items():
            yield _csv_row(method.method, "", name, name == "steps_per_second", score)


def _csv_row(method: str, task: str, metric: str, higher: bool, score: Score) -> list[Any]:
    """Write one score as a row."""
    seeds = " ".join(map(str, score.seeds))
    return [method, task, metric, higher, score.mean, score.std, score.low, score.high, seeds, score.num_non_finite]
