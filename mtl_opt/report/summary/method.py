"""The runs of one method → its numbers: scores, changes against the baselines, means over tasks, costs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, nan

from mtl_opt.evaluation.statistics import delta_m
from mtl_opt.report.read.runs import Runs, is_number
from mtl_opt.report.summary.numbers import MethodSummary, Score, score_over_seeds
from mtl_opt.results import SINGLE

COSTS = ("steps_per_second", "peak_memory_mb", "train_runtime", "steps", "conflict_rate", "overhead_seconds")


@dataclass(frozen=True)
class Judged:
    """Hold by what methods are judged.

    Attributes:
        tasks: Names of the tasks.
        main_metric: Metric by task.
        directions: Metric → whether higher is better.
        baselines: The single-task runs, None without them.
        auxiliary: Tasks that are there to help the others: they are measured, but are in no mean.
    """

    tasks: list[str]
    main_metric: dict[str, str]
    directions: dict[str, bool]
    baselines: Runs | None
    auxiliary: list[str] = field(default_factory=list)

    @property
    def counted(self) -> dict[str, str]:
        """Main metric of every task that goes into means: the main tasks, or all where there is none."""
        found = {task: metric for task, metric in self.main_metric.items() if task not in self.auxiliary}
        return found or self.main_metric


def summarise_method(runs: Runs, judged: Judged, mean_rank: float | None) -> MethodSummary:
    """Compute everything about one method."""
    scores = task_scores(runs, judged)
    losses = dict.fromkeys(judged.counted, "loss")
    main, why = delta_over_seeds(runs, judged, judged.counted)
    loss, why_loss = delta_over_seeds(runs, judged, losses)
    changes = {task: task_change(runs, judged, task) for task in judged.tasks}
    known = {task: change.mean for task in judged.counted if (change := changes[task]).mean is not None}
    lines = [line for lines in runs.lines.values() for line in lines]
    first = runs.first
    return MethodSummary(
        method=runs.method,
        combiner=str(first["combiner"]),
        sharing=str(first.get("sharing") or "none"),
        mixing=str(first.get("mixing") or (first.get("config") or {}).get("mixing") or "balanced"),
        norm_matched=bool(first.get("norm_matched")),
        learning_rates={seed: of[0]["learning_rate"] for seed, of in runs.lines.items() if "learning_rate" in of[0]},
        runs=[str(line["run"]) for line in lines],
        scores=scores,
        changes=changes,
        delta_m=main,
        delta_m_loss=loss,
        reasons=[f"{name_of(judged)} {reason}" for reason in why] + [f"Δm loss {reason}" for reason in why_loss],
        mean_rank=mean_rank,
        worst_task=min(known, key=lambda task: known[task]) if known and runs.method != SINGLE else None,
        macro=over_tasks(runs, judged, dict.fromkeys(judged.tasks, 1)),
        micro=over_tasks(runs, judged, held_out_rows(runs)),
        costs=costs_of(runs),
        non_finite=[f"`{line['run']}`: {what}" for line in lines for what in non_finite_of(line)],
    )


def name_of(judged: Judged) -> str:
    """Name Δm over the main metrics."""
    return "Δm EM" if set(judged.counted.values()) == {"exact_match"} else "Δm"


def non_finite_of(line: Mapping[str, object]) -> list[str]:
    """List what a run measured that is not finite."""
    given = line.get("non_finite")
    if isinstance(given, list):
        return [str(what) for what in given]
    metrics = line["metrics"]
    assert isinstance(metrics, Mapping)
    return [f"{key}: {'nan' if value is None else value}" for key, value in metrics.items() if not is_number(value)]


def task_scores(runs: Runs, judged: Judged) -> dict[str, dict[str, Score]]:
    """Summarise every metric of every task over the seeds."""
    found: dict[str, dict[str, Score]] = {}
    for task in judged.tasks:
        values: dict[str, dict[int, float]] = {}
        for metric in metric_names(task, runs, judged):
            key = f"eval_{task}_{metric}"
            values[metric] = {seed: metrics[key] for seed, metrics in runs.metrics.items() if key in metrics}
        found[task] = {metric: score_over_seeds(per_seed) for metric, per_seed in values.items() if per_seed}
    return found


def metric_names(task: str, runs: Runs, judged: Judged) -> list[str]:
    """List the metrics of a task; the longest task name wins, as one may begin with another and a line."""
    prefix = f"eval_{task}_"
    keys = [key for metrics in runs.metrics.values() for key in metrics if key.startswith(prefix)]
    longer = [f"eval_{other}_" for other in judged.tasks if other.startswith(f"{task}_")]
    names = [key.removeprefix(prefix) for key in keys if not any(key.startswith(other) for other in longer)]
    ordered = [judged.main_metric[task], *(name for name in names if name != "loss"), *("loss" for n in names if n)]
    return list(dict.fromkeys(ordered))


def task_change(runs: Runs, judged: Judged, task: str) -> Score:
    """Compare a task with its single-task baseline, seed by seed."""
    metric = judged.main_metric[task]
    values = delta_values(runs, judged, {task: metric})[0]
    return score_over_seeds(values)


def delta_over_seeds(runs: Runs, judged: Judged, metric_of: Mapping[str, str]) -> tuple[Score, list[str]]:
    """Compute Δm seed by seed."""
    values, left_out = delta_values(runs, judged, metric_of)
    sentences = [f"leaves out seed {', '.join(map(str, seeds))}: {why}." for why, seeds in left_out.items()]
    return score_over_seeds(values), sentences


def delta_values(
    runs: Runs, judged: Judged, metric_of: Mapping[str, str]
) -> tuple[dict[int, float], dict[str, list[int]]]:
    """Compute Δm per seed, NaN where a metric is not finite; and reason → seeds left out."""
    keys = {task: f"eval_{task}_{metric}" for task, metric in metric_of.items()}
    higher = {keys[task]: judged.directions.get(metric, True) for task, metric in metric_of.items()}
    values: dict[int, float] = {}
    left_out: dict[str, list[int]] = {}
    if judged.baselines is None:
        return values, left_out
    for seed, metrics in runs.metrics.items():
        base = judged.baselines.metrics.get(seed, {})
        reason = why_no_delta(runs.method, metrics, base, keys)
        if reason:
            left_out.setdefault(reason, []).append(seed)
            continue
        chosen = {key: metrics[key] for key in keys.values()}
        finite = all(isfinite(value) for value in chosen.values())
        values[seed] = delta_m(chosen, base, higher) if finite else nan
    return values, left_out


def why_no_delta(
    method: str, metrics: Mapping[str, float], baselines: Mapping[str, float], keys: Mapping[str, str]
) -> str | None:
    """Return why Δm cannot be computed; None where it can."""
    checks = [
        ("there is no single-task baseline for {}", lambda key: key not in baselines),
        (f"`{method}` has no value for {{}}", lambda key: key not in metrics),
        ("the single-task baseline of {} is not finite", lambda key: not isfinite(baselines[key])),
        ("the single-task baseline of {} is 0", lambda key: baselines[key] == 0),
    ]
    for reason, fails in checks:
        tasks = [f"`{task}`" for task, key in keys.items() if fails(key)]
        if tasks:
            return reason.format(", ".join(tasks))
    return None


def held_out_rows(runs: Runs) -> dict[str, int]:
    """Read on how many rows each task was measured; nothing where no line says so."""
    rows: dict[str, int] = {}
    for lines in runs.lines.values():
        for line in lines:
            rows |= line.get("eval_rows") or {}
    return rows


def over_tasks(runs: Runs, judged: Judged, weights: Mapping[str, int]) -> dict[str, Score]:
    """Average each metric that all tasks have over the tasks, auxiliary ones apart."""
    tasks = list(judged.counted)
    total = sum(weights.get(task, 0) for task in tasks)
    if not set(tasks) <= set(weights) or total <= 0:
        return {}
    names = [metric_names(task, runs, judged) for task in tasks]
    found = {}
    for metric in [name for name in names[0] if all(name in other for other in names)]:
        values = {}
        for seed, metrics in runs.metrics.items():
            keys = {task: f"eval_{task}_{metric}" for task in tasks}
            if all(key in metrics for key in keys.values()):
                values[seed] = sum(weights[task] * metrics[key] for task, key in keys.items()) / total
        if values:
            found[metric] = score_over_seeds(values)
    return found


def costs_of(runs: Runs) -> dict[str, Score]:
    """Summarise the costs of the runs; those of one seed's baselines are added where a sum has a meaning."""
    found = {}
    for name in COSTS:
        values = {}
        for seed, lines in runs.lines.items():
            numbers = [float(line[name]) for line in lines if is_number(line.get(name))]
            if numbers:
                adds = name in {"train_runtime", "steps", "overhead_seconds"}
                values[seed] = (
                    sum(numbers) if adds else max(numbers) if "memory" in name else sum(numbers) / len(numbers)
                )
        found[name] = score_over_seeds(values)
    return found
