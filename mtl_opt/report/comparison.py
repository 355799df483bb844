"""The comparison of combiners: from the lines of `results.jsonl` to rows, columns and the notes below."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, isnan
from statistics import fmean
from typing import Any, TypeGuard

from mtl_opt.errors import InputError
from mtl_opt.evaluation.statistics import delta_m, mean_and_std

SINGLE = "single"
"""Combiner name of the single-task baselines."""

NONE = "–"
METRICS = ("EM", "loss")  # what Δm is over
SCORES = {"exact_match": ("EM %", 100, True), "accuracy": ("accuracy %", 100, True), "mse": ("MSE", 1, False)}
"""Scores a task may have beside its loss, the first one found is shown: name, factor, whether higher is better."""
LEGEND = (
    "EM %: exact match; loss: nats per token. Mean over seeds, ± sample standard deviation.",
    "Δm %: mean relative change of EM or loss against the single-task baselines of the same seed; "
    "positive = better than single-task.",
)


@dataclass
class Runs:
    """Hold all results of one combiner.

    Attributes:
        metrics: Per seed, the value of each `eval_{task}_{metric}`.
        others: Per seed, the result's other numbers.
    """

    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    others: dict[int, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """Hold one column: the group (a task) it stands under, its name, one cell per combiner."""

    group: str
    name: str
    cells: list[str]


@dataclass(frozen=True)
class Comparison:
    """Hold what both forms of the table show: one row per combiner, and the lines below."""

    combiners: list[str]
    columns: list[Column]
    notes: list[str]


def collect(results: Iterable[Mapping[str, Any]]) -> dict[str, Runs]:
    """Gather the results of each combiner; the single-task runs of one seed become one.

    Args:
        results: Lines of `results.jsonl`.

    Returns:
        The runs per combiner, in order of appearance, `single` last.
    """
    found: dict[str, Runs] = {}
    for result in results:
        runs, seed = found.setdefault(result["combiner"], Runs()), result["seed"]
        values = {key: value for key, value in result["metrics"].items() if is_number(value)}
        runs.metrics.setdefault(seed, {}).update(values)
        runs.others[seed] = result
    if SINGLE in found:
        found[SINGLE] = found.pop(SINGLE)
    return found


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value can be averaged.

    Args:
        value: A value from JSON.

    Returns:
        False for null, texts, NaN and infinity.
    """
    return isinstance(value, (int, float)) and isfinite(value)


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Write the mean of values over seeds.

    Args:
        values: One value per seed.
        digits: Digits after the point.
        sign: `+` to show the sign of positive means.

    Returns:
        Such as `0.42 ± 0.01`, without `±` for one value; a dash for none.
    """
    if not values:
        return NONE
    mean, deviation = mean_and_std(values)
    text = f"{mean:{sign}.{digits}f}"
    return text if isnan(deviation) else f"{text} ± {deviation:.{digits}f}"


def task_columns(runs: Mapping[str, Runs], task: str) -> list[Column]:
    """Build the columns of one task.

    Args:
        runs: The runs per combiner.
        task: Name of the task.

    Returns:
        Exact match or what the task has instead, and loss.
    """
    score = score_of(runs, task)
    name, factor, _ = SCORES[score]

    def values(of: Runs, metric: str, factor: int) -> list[float]:
        key = f"eval_{task}_{metric}"
        return [factor * metrics[key] for metrics in of.metrics.values() if key in metrics]

    return [
        Column(task, name, [spread(values(of, score, factor), 1 if factor == 100 else 3) for of in runs.values()]),
        Column(task, "loss", [spread(values(of, "loss", 1), 3) for of in runs.values()]),
    ]


def score_of(runs: Mapping[str, Runs], task: str) -> str:
    """Find the score of a task.

    Args:
        runs: The runs per combiner.
        task: Name of the task.

    Returns:
        One of `SCORES`.
    """
    keys = {key for of in runs.values() for metrics in of.metrics.values() for key in metrics}
    return next((score for score in SCORES if f"eval_{task}_{score}" in keys), "exact_match")


def why_no_delta(runs: Mapping[str, Runs], combiner: str, seed: int, keys: Mapping[str, str]) -> str | None:
    """Find out what keeps Δm from being computed.

    Args:
        runs: The runs per combiner.
        combiner: The combiner of the row.
        seed: The seed of the run.
        keys: Key of the metric of each task.

    Returns:
        The reason; None where there is none.
    """
    metrics, baselines = runs[combiner].metrics[seed], runs[SINGLE].metrics.get(seed, {})
    checks: list[tuple[str, Callable[[str], bool]]] = [
        ("there is no single-task baseline for {}", lambda key: key not in baselines),
        (f"`{combiner}` has no value for {{}}", lambda key: key not in metrics),
        ("the single-task baseline of {} is 0", lambda key: baselines[key] == 0),
    ]
    for reason, fails in checks:
        tasks = [f"`{task}`" for task, key in keys.items() if fails(key)]
        if tasks:
            return reason.format(", ".join(tasks))
    return None


def delta_column(runs: Mapping[str, Runs], tasks: Sequence[str], name: str) -> tuple[Column, list[str]]:
    """Build the column with Δm over one metric of all tasks.

    Args:
        runs: The runs per combiner, baselines among them.
        tasks: Names of the tasks.
        name: `EM` or `loss`.

    Returns:
        The column, and a sentence for each reason why seeds were left out.
    """
    scores = {task: score_of(runs, task) if name == "EM" else "loss" for task in tasks}
    keys = {task: f"eval_{task}_{score}" for task, score in scores.items()}
    higher = {keys[task]: score != "loss" and SCORES[score][2] for task, score in scores.items()}
    cells, left_out = [], dict[str, dict[int, None]]()
    for combiner, of in runs.items():
        values = []
        for seed, metrics in of.metrics.items():
            reason = why_no_delta(runs, combiner, seed, keys)
            if reason:
                left_out.setdefault(reason, {})[seed] = None
            else:
                chosen = {key: metrics[key] for key in keys.values()}
                values.append(delta_m(chosen, runs[SINGLE].metrics[seed], higher))
        is_reference = combiner == SINGLE and values
        cells.append("0" if is_reference else spread(values, 1, "+"))
    notes = [f"Δm {name} leaves out seed {', '.join(map(str, seeds))}: {why}." for why, seeds in left_out.items()]
    shown = "score" if name == "EM" and set(scores.values()) != {"exact_match"} else name
    return Column("", f"Δm {shown} %", cells), notes


def mean_or_none(values: Iterable[Any]) -> float | None:
    """Average what is there.

    Args:
        values: Numbers, or null where a run has none.

    Returns:
        The mean of the numbers; None where there is none.
    """
    numbers = [value for value in values if is_number(value)]
    return fmean(numbers) if numbers else None


def step_time(runs: Runs) -> float | None:
    """Average the time of one step.

    Args:
        runs: The runs of one combiner.

    Returns:
        Seconds; None where no run has measured it.
    """
    speeds = (of.get("steps_per_second") for of in runs.others.values())
    return mean_or_none(1 / speed for speed in speeds if is_number(speed) and speed > 0)


def cost_columns(runs: Mapping[str, Runs]) -> tuple[list[Column], list[str]]:
    """Build the columns on conflict and cost.

    Args:
        runs: The runs per combiner.

    Returns:
        Mean conflict rate in percent and relative step time, and a sentence on what the time is relative to.
    """
    rates = [mean_or_none(other.get("conflict_rate") for other in of.others.values()) for of in runs.values()]
    columns = [Column("", "conflict %", [NONE if rate is None else f"{100 * rate:.1f}" for rate in rates])]
    # A step of a single-task run sees one task's rows alone: its time says nothing about a combiner.
    times = {name: step_time(of) for name, of in runs.items() if name != SINGLE}
    reference = "sum" if "sum" in times else next(iter(times), None)
    base = times.get(reference) if reference else None
    cells = [f"{time / base:.2f}×" if base and (time := times.get(name)) else NONE for name in runs]
    notes = [f"Step time: relative to `{reference}`. Conflict: share of task pairs in conflict, mean over the run."]
    return [*columns, Column("", "step time", cells)], notes if base else []


def compare(results: Sequence[Mapping[str, Any]]) -> Comparison:
    """Build the rows of the table.

    Args:
        results: Lines of `results.jsonl`.

    Returns:
        One row per combiner, with the columns of every task, Δm, conflict rate and step time.

    Raises:
        InputError: Where there is no result.
    """
    if not results:
        raise InputError("There are no results to compare: `results.jsonl` is empty.")
    runs = collect(results)
    joint_first = sorted(results, key=lambda result: result["combiner"] == SINGLE)
    tasks = list(dict.fromkeys(task for result in joint_first for task in result["tasks"]))
    columns = [Column("", "seeds", [str(len(of.metrics)) for of in runs.values()])]
    for task in tasks:
        columns += task_columns(runs, task)
    notes = list(LEGEND)
    if SINGLE in runs:
        for name in METRICS:
            column, reasons = delta_column(runs, tasks, name)
            columns.append(column)
            notes += reasons
    else:
        columns += [Column("", f"Δm {name} %", [NONE] * len(runs)) for name in METRICS]
        notes.append("Δm is missing: there are no single-task baselines (`baselines: true` trains them).")
    costs, cost_notes = cost_columns(runs)
    return Comparison(list(runs), columns + costs, notes + cost_notes)
