"""The comparison as a table: from a summary to rows, columns and the notes below."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from mtl_opt.report.summary.assembly import summarise
from mtl_opt.report.summary.numbers import MethodSummary, Score, Summary
from mtl_opt.results import SINGLE

Results = Sequence[Mapping[str, Any]] | Summary
"""Lines of `results.jsonl`, or what they were summarised to."""

NONE = "–"
SHORT = {"exact_match": "EM", "accuracy": "acc", "f1_macro": "F1 macro", "f1_binary": "F1", "matthews": "MCC"}
"""Short names of metrics; the others are short already."""

PLAIN = {"loss": 3, "perplexity": 2, "mse": 3, "pearson": 3}
"""Metrics that are shown as they are, and digits after their point; shares are shown in percent."""

LEGEND = (
    "Shares are in percent, EM: exact match; loss: nats per token. Mean over seeds, ± sample standard deviation.",
    "Δm %: mean relative change against the single-task baselines of the same seed, positive = better than "
    "single-task. Rank: mean over tasks and seeds, 1 is best.",
)
MOST_SENTENCES = 12
"""Most comparisons that are written out below a table; `summary.json` has all."""


@dataclass(frozen=True)
class Column:
    """Hold one column: the group (a task) it stands under, its name, one cell per method."""

    group: str
    name: str
    cells: list[str]


@dataclass(frozen=True)
class ComparisonTable:
    """Hold what all forms of the table show.

    Attributes:
        methods: Names of the rows.
        columns: The columns of numbers.
        notes: Lines below that explain it.
        transfer: Columns of a second table, on all rows but the baselines.
        verdicts: Lines at the end that say who won.
    """

    methods: list[str]
    columns: list[Column]
    notes: list[str]
    transfer: list[Column] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)


def lay_out(results: Results) -> ComparisonTable:
    """Lay a comparison out as a table: one row per method, columns of every task, Δm, ranks and costs.

    An `InputError` says that there is no result, or in what two runs disagree.
    """
    summary = results if isinstance(results, Summary) else summarise(results)
    rows = [*summary.methods, *([summary.baselines] if summary.baselines else [])]
    columns = [Column("", "seeds", [str(num_seeds(row)) for row in rows])]
    for task in summary.tasks:
        columns += task_columns(rows, task)
    columns += delta_columns(rows, summary)
    columns += mean_columns(rows, summary)
    costs, cost_notes = cost_columns(rows, summary)
    # Where there are too few seeds for any test, the verdict has said so once.
    sentences = [one.sentence for one in summary.comparisons if one.verdict != "too few seeds"]
    return ComparisonTable(
        [row.method for row in rows],
        columns + costs,
        [*LEGEND, *summary.notes, *cost_notes],
        transfer_columns(summary),
        [summary.verdict, *sentences[:MOST_SENTENCES]],
    )


def num_seeds(row: MethodSummary) -> int:
    """Count the seeds of a method."""
    return len({seed for scores in row.scores.values() for score in scores.values() for seed in score.seeds})


def spread(score: Score | None, digits: int, factor: float = 1, sign: str = "") -> str:
    """Write a score."""
    if score is None or not score.values:
        return NONE
    if score.mean is None:
        return f"nan ({score.num_non_finite} of {len(score.values)})"
    text = f"{factor * score.mean:{sign}.{digits}f}"
    return text if score.std is None else f"{text} ± {factor * score.std:.{digits}f}"


def metric_cell(score: Score | None, metric: str) -> str:
    """Write a metric in the unit in which it is shown."""
    return spread(score, PLAIN[metric]) if metric in PLAIN else spread(score, 1, 100)


def metric_name(metric: str) -> str:
    """Name a metric in the head of a column."""
    return metric if metric in PLAIN else f"{SHORT.get(metric, metric)} %"


def task_columns(rows: Sequence[MethodSummary], task: str) -> list[Column]:
    """Build the columns of one task."""
    metrics = dict.fromkeys(metric for row in rows for metric in row.scores.get(task, {}))
    return [
        Column(task, metric_name(metric), [metric_cell(row.scores.get(task, {}).get(metric), metric) for row in rows])
        for metric in metrics
    ]


def delta_columns(rows: Sequence[MethodSummary], summary: Summary) -> list[Column]:
    """Build the columns with Δm over the main metrics and over the losses, mean rank and worst task."""

    def cells(of: str) -> list[str]:
        scores = [getattr(row, of) for row in rows]
        reference = [row.method == SINGLE and score.values for row, score in zip(rows, scores, strict=True)]
        return ["0" if zero else spread(s, 1, sign="+") for zero, s in zip(reference, scores, strict=True)]

    main = set(summary.main_metric.values())
    name = "Δm EM %" if main == {"exact_match"} else "Δm %"
    columns = [] if main == {"loss"} else [Column("", name, cells("delta_m"))]
    columns.append(Column("", "Δm loss %", cells("delta_m_loss")))
    if len(summary.methods) > 1:
        ranks = [NONE if row.mean_rank is None else f"{row.mean_rank:.2f}" for row in rows]
        columns.append(Column("", "rank", ranks))
    if summary.baselines is not None and len(summary.tasks) > 1:
        columns.append(Column("", "worst task", [worst_cell(row) for row in rows]))
    return columns


def worst_cell(row: MethodSummary) -> str:
    """Write the task that suffers most under a method."""
    return NONE if row.worst_task is None else f"{row.worst_task} {spread(row.changes[row.worst_task], 1, sign='+')}"


def mean_columns(rows: Sequence[MethodSummary], summary: Summary) -> list[Column]:
    """Build the columns of means over tasks, of metrics that all tasks are judged by."""
    if len(summary.tasks) < 2:
        return []
    columns = []
    for metric in dict.fromkeys(summary.main_metric.values()):
        for kind in ("macro", "micro"):
            scores = [getattr(row, kind).get(metric) for row in rows]
            if any(scores):
                columns.append(Column(kind, metric_name(metric), [metric_cell(score, metric) for score in scores]))
    return columns


def step_time(row: MethodSummary) -> float | None:
    """Average the time of one step."""
    times = [1 / speed for speed in row.costs["steps_per_second"].values if speed]
    return fmean(times) if times else None


def cost_columns(rows: Sequence[MethodSummary], summary: Summary) -> tuple[list[Column], list[str]]:
    """Build the columns on conflict and cost."""
    columns = [Column("", "conflict %", [NONE if (rate := finite_mean(row, "conflict_rate")) is None
                                         else f"{100 * rate:.1f}" for row in rows])]  # fmt: skip
    # A step of a single-task run sees one task's rows alone: its time says nothing about a combiner.
    times = {row.method: step_time(row) for row in summary.methods}
    base = times.get(summary.reference) if summary.reference else None
    cells = [f"{time / base:.2f}×" if base and (time := times.get(row.method)) else NONE for row in rows]
    columns.append(Column("", "step time", cells))
    for name, key, digits in (("steps/s", "steps_per_second", 2), ("peak MiB", "peak_memory_mb", 0)):
        columns.append(Column("", name, [number_cell(finite_mean(row, key), digits) for row in rows]))
    notes = [f"Step time: relative to `{summary.reference}`. Conflict: share of task pairs in conflict, mean over the "
             "run. Peak MiB of one process, libraries included."]  # fmt: skip
    return columns, notes if base else []


def number_cell(value: float | None, digits: int) -> str:
    """Write a number, or a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def finite_mean(row: MethodSummary, key: str) -> float | None:
    """Average a cost over the seeds that have it."""
    numbers: Iterable[float] = [value for value in row.costs[key].values if value is not None]
    return fmean(numbers) if numbers else None


def transfer_columns(summary: Summary) -> list[Column]:
    """Build the table of transfer: change of every task's main metric against its single-task baseline."""
    marks = {(one.method, one.task): {"better": " ▲", "worse": " ▼"}.get(one.verdict, "") for one in summary.transfer}
    if not marks:
        return []
    return [
        Column("", task, [spread(row.changes[task], 1, sign="+") + marks.get((row.method, task), "")
                          for row in summary.methods])
        for task in summary.tasks
    ]  # fmt: skip
