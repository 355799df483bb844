"""What lies in a folder of results: finished runs, unfinished ones, and whether they may stand in one report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.monitor.json_lines import parse_line
from mtl_opt.report.read.runs import RESULTS, method_of, planned_runs, read_comparison, role_of

LOG = "trainer_log.jsonl"
ONE_RESULT = "all_results.json"
CONFIG = "config.yaml"


@dataclass(frozen=True)
class ResultsFolder:
    """Hold what a report is made of.

    Attributes:
        path: The folder.
        kind: "comparison", or "run" for the folder of one run.
        lines: One per finished run, all with `role`, `method`, `run`; of an unfinished single run what its log has.
        unfinished: Folders of runs that have started and have no result.
        torn: Whether a kill has torn the last line of `results.jsonl`.
    """

    path: Path
    kind: str
    lines: list[dict[str, Any]]
    unfinished: list[str] = field(default_factory=list)
    torn: bool = False

    def run_folder(self, line: Mapping[str, Any]) -> Path:
        """Locate the files of a run."""
        return self.path if self.kind == "run" else self.path / line["run"]

    def of_role(self, *roles: str) -> list[dict[str, Any]]:
        """Select runs."""
        return [line for line in self.lines if line["role"] in roles]


def read_folder(path: Path) -> ResultsFolder:
    """Read a comparison or a single run."""
    if not path.is_dir():
        raise InputError(f"There is no folder `{path}`.")
    if (path / RESULTS).exists():
        return read_grid(path)
    if (path / LOG).exists() or (path / ONE_RESULT).exists():
        return ResultsFolder(path, "run", [line_of_run(path)])
    runs = [folder.name for folder in started(path)]
    if runs:
        raise InputError(
            f"`{path}` has no `{RESULTS}`, so no run of a comparison has finished in it; it holds the folders "
            f"{listed(runs)}: `mtl-opt report` on one of them describes that run."
        )
    raise InputError(
        f"`{path}` is no folder of results: neither `{RESULTS}` of `mtl-opt compare` nor `{LOG}` of "
        "`mtl-opt train` is in it."
    )


def read_grid(path: Path) -> ResultsFolder:
    """Read the folder of a comparison."""
    raw, notes = read_comparison(path)
    for line in raw:
        if not all(isinstance(line.get(key), kind) for key, kind in NEEDED.items()):
            raise InputError(f"`{path / RESULTS}`: `{line['run']}` is no result of a run.")
    lines = [complete(line) for line in raw]
    names = {line["run"] for line in lines}
    unfinished = list(dict.fromkeys([*planned_runs(path), *(folder.name for folder in started(path))]))
    unfinished = [name for name in unfinished if name not in names]
    if all(line["role"] == "search" for line in lines):
        raise InputError(f"`{path}` has no finished run yet, only the search for learning rates.")
    return ResultsFolder(path, "comparison", lines, unfinished, torn=any("torn" in note for note in notes))


NEEDED = {"run": str, "combiner": str, "seed": int, "tasks": list, "metrics": dict}
"""Keys without which a line is no result of a run."""


def complete(line: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys that lines of earlier releases lack."""
    missing: dict[str, Any] = {"task": None, "provenance": {}, "config": {}, "non_finite": [], "before": {}}
    missing |= {"role": role_of(line), "method": method_of(line)}
    return missing | {key: value for key, value in line.items() if value is not None} | {"method": method_of(line)}


def started(path: Path) -> Iterator[Path]:
    """Find the folders of runs."""
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and any((folder / name).exists() for name in (LOG, CONFIG, ONE_RESULT)):
            yield folder


def line_of_run(path: Path) -> dict[str, Any]:
    """Describe a single run as `results.jsonl` would."""
    import yaml

    try:
        results = json.loads((path / ONE_RESULT).read_text(encoding="utf-8")) if (path / ONE_RESULT).exists() else None
        config = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")) if (path / CONFIG).exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"`{path}`: the files of this run cannot be read ({str(error).splitlines()[0]}).") from error
    if not isinstance(config, dict) or not isinstance(results, dict | None):
        raise InputError(f"`{path}`: `{CONFIG}` or `{ONE_RESULT}` is not that of a run.")
    log = [parse_line(text) for text in (path / LOG).read_bytes().splitlines()] if (path / LOG).exists() else []
    rows = [row for row in log if row is not None]
    if results is None and not rows:
        raise InputError(f"`{path}` holds a run that has not logged anything yet.")
    last = rows[-1] if rows else {}
    values = results if results is not None else {}
    combiner, method = taken_by(config, path.name)
    line = {
        "run": path.name,
        "combiner": combiner,
        "method": method,
        "seed": config.get("seed", 0),
        "tasks": tasks_of_run(config, [*rows, values]),
        "metrics": {key: value for key, value in values.items() if key.startswith("eval_")},
        "before": {k.removeprefix("before_"): v for k, v in values.items() if k.startswith("before_")},
        "config": config,
        "finished": results is not None,
        "steps": values.get("train_steps", last.get("current_steps")),
        "total_steps": last.get("total_steps", values.get("train_steps")),
        "provenance": values.get("provenance") or {},
    }
    numbers = ("conflict_rate", "steps_per_second", "peak_memory_mb", "train_runtime", "overhead_seconds")
    line |= {key: values.get(key) for key in numbers}
    return complete(line)


def taken_by(config: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Say whose update a run took: one that only watches takes the plain sum, whatever `combiner` says."""
    combiner = str(config.get("combiner", name))
    if not config.get("monitor_only"):
        return combiner, combiner
    watched = "" if combiner == "sum" else f"; {combiner} watched"
    return "sum", f"sum (monitor only{watched})"


def tasks_of_run(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find the names of a run's tasks."""
    named = config.get("only_tasks") or list(config.get("tasks") or {})
    if named:
        return [str(task) for task in named]
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("eval_") and key.endswith("_loss"))
    return [key.removeprefix("eval_").removesuffix("_loss") for key in keys]


def listed(names: Sequence[str], most: int = 6) -> str:
    """Write names in a sentence."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
