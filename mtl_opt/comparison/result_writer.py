"""`results.jsonl`: one line per finished run with everything needed to judge and to repeat it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from math import isfinite
from pathlib import Path
from typing import Any

from mtl_opt.comparison.grid import GridRun
from mtl_opt.comparison.rate_search import search_score
from mtl_opt.comparison.settings_check import refuse_other_settings
from mtl_opt.evaluation import split_name
from mtl_opt.monitor import write_hparams
from mtl_opt.results import (
    RESULTS_JSONL,
    ResultLine,
    append_result_line,
    heal_result_lines,
    json_line,
    run_costs,
    untrained_metrics,
    write_text,
)
from mtl_opt.training.config.task_metrics import directions_of, main_metric, metric_names
from mtl_opt.training.setup.data import Prepared

HPARAMS = ("method", "combiner", "sharing", "mixing", "norm_matched", "learning_rate", "seed", "task", "role")
HPARAMS_COSTS = ("conflict_rate", "steps_per_second", "peak_memory_mb")
"""Columns of TensorBoard's HParams table: settings, and what is shown beside the metrics."""

NO_SHARES = {"loss", "perplexity", "mse", "pearson"}
"""Metrics that are not printed in percent."""


class ResultWriter:
    """Read the lines there are and append new ones; one process does this, the parent of all workers.

    Args:
        output: Folder of the comparison.
        data: The data of all tasks.
        provenance: Versions, commit and hash of the data, written into every line.
    """

    def __init__(self, output: Path, data: Prepared, provenance: Mapping[str, Any]) -> None:
        self.output, self.data, self.provenance = output, data, dict(provenance)
        self.known = heal_result_lines(output)

    def refuse_other_settings(self, runs: Sequence[GridRun], own: Collection[str]) -> None:
        """Refuse to put runs with different settings or data into one table; an `InputError` says what differs."""
        refuse_other_settings(self.output, runs, self.known, self.provenance["data_hash"], own)

    def add(self, run: GridRun, reply: Mapping[str, Any], select_by: str) -> ResultLine:
        """Write the result of a run as one line, and as a row of TensorBoard's HParams table."""
        line = self._line(run, reply)
        if run.role == "search":
            line["search_score"] = search_score(line, select_by)
        write_hparams_row(self.output / run.name, line, self._metric_names(self.data.tasks))
        append_result_line(self.output, line)
        self.known[run.name] = line
        return line

    def judge(self, runs: Sequence[GridRun], select_by: str) -> list[ResultLine]:
        """Score the runs of the search by `select_by`; an earlier call may have scored them by something else."""
        lines = [self.known[run.name] for run in runs]
        scores = [search_score(line, select_by) for line in lines]
        if scores != [line.get("search_score") for line in lines]:
            for line, score in zip(lines, scores, strict=True):
                line["search_score"] = score
            write_text(self.output / RESULTS_JSONL, "".join(json_line(line) for line in self.known.values()))
        return lines

    def _line(self, run: GridRun, reply: Mapping[str, Any]) -> ResultLine:
        """Assemble the line of a run."""
        config, method, results = run.config, run.method, reply["results"] or {}
        tasks = [method.task] if method.task else list(config.only_tasks or self.data.tasks)
        metrics, non_finite = self._metrics(tasks, results, reply["diverged"])
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {
            "run": run.name,
            "role": run.role,
            "method": method.label,
            "combiner": method.combiner,
            "sharing": "none" if config.sharing == "hard" else config.sharing,
            "mixing": config.mixing,
            "norm_matched": config.norm_matched,
            "learning_rate": config.learning_rate,
            "seed": config.seed,
            "task": method.task,
            "tasks": tasks,
            "auxiliary": [task for task in tasks if self.data.settings[task].role == "auxiliary"],
            "metrics": metrics,
            "non_finite": non_finite,
            "before": untrained_metrics(results),
            "directions": directions_of([self.data.settings[task] for task in tasks]),
            "main_metric": {task: main_metric(self.data.settings[task]) for task in tasks},
            "eval_rows": {task: self._num_rows(task, run) for task in tasks},
            **run_costs(results),
            "provenance": {**self.provenance, "hardware": reply["hardware"], "time": results.get("time") or now},
            "config": asdict(config),
        }

    def _metrics(
        self, tasks: Sequence[str], results: Mapping[str, Any], diverged: str | None
    ) -> tuple[dict[str, float | None], list[str]]:
        """Read the metrics, None where they are not finite, and name what diverged."""
        found: dict[str, float | None] = {}
        for key in self._metric_names(tasks):
            if key in results or diverged is not None:
                found[key] = results.get(key)
        broken = [f"{key}: {value}" for key, value in found.items() if value is not None and not isfinite(value)]
        clean = {key: value if value is not None and isfinite(value) else None for key, value in found.items()}
        return clean, [diverged] if diverged else broken

    def _metric_names(self, tasks: Sequence[str]) -> list[str]:
        """List the keys of the metrics of all tasks that have held-out rows."""
        names = []
        for task in tasks:
            if self.data.eval_rows[task]:
                metrics = ["loss", *(split_name(name)[0] for name in metric_names(self.data.settings[task]))]
                names += [f"eval_{task}_{metric}" for metric in dict.fromkeys(metrics)]
        return names

    def _num_rows(self, task: str, run: GridRun) -> int | None:
        """Count the rows a task was measured on; None for a search, which has rows of its own."""
        return None if run.role == "search" else len(self.data.eval_rows[task])


def write_hparams_row(folder: Path, line: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Write a run's row of the HParams table beside its events; a run that has its row is left alone."""
    events = folder / "runs"
    if any(events.glob("*.hparams")):
        return
    values = {key: line["metrics"].get(key) for key in metrics} | {key: line[key] for key in HPARAMS_COSTS}
    write_hparams(events, {key: line[key] for key in HPARAMS}, values)


def headline(line: Mapping[str, Any]) -> str:
    """Format the main metric of every task in one line."""
    if line["non_finite"]:
        return f"diverged: {line['non_finite'][0]}"
    values = {task: line["metrics"].get(f"eval_{task}_{metric}") for task, metric in line["main_metric"].items()}
    return ", ".join(
        f"{task} {value:.3f}" if line["main_metric"][task] in NO_SHARES else f"{task} {100 * value:.0f} %"
        for task, value in values.items()
        if value is not None
    )
