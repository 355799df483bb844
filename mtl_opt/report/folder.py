"""What lies in a folder of results: finished runs, unfinished ones, and whether they may stand in one report."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.monitor.json_lines import parse_line

RESULT_LINES = "results.jsonl"
LOG = "trainer_log.jsonl"
RESULTS = "all_results.json"
CONFIG = "config.yaml"
ROLES = ("method", "baseline", "search")


@dataclass(frozen=True)
class ResultsFolder:
    """Hold what a report is made of.

    Attributes:
        path: The folder.
        kind: "comparison", or "run" for the folder of one run.
        lines: One per finished run, all with `role`, `method`, `run`; of an unfinished single run what its log has.
        unfinished: Folders of runs that have started and have no result.
        torn: Lines of `results.jsonl` that a kill has torn.
    """

    path: Path
    kind: str
    lines: list[dict[str, Any]]
    unfinished: list[str] = field(default_factory=list)
    torn: int = 0

    def run_folder(self, line: Mapping[str, Any]) -> Path:
        """Locate the files of a run.

        Args:
            line: Its line.

        Returns:
            Its folder.
        """
        return self.path if self.kind == "run" else self.path / line["run"]

    def of_role(self, *roles: str) -> list[dict[str, Any]]:
        """Select runs.

        Args:
            roles: "method", "baseline", "search".

        Returns:
            The lines with one of these roles, in order.
        """
        return [line for line in self.lines if line["role"] in roles]


def read_folder(path: Path) -> ResultsFolder:
    """Read a comparison or a single run.

    Args:
        path: Folder with `results.jsonl`, or of one run.

    Returns:
        What is in it.

    Raises:
        InputError: If there is no such folder, no finished run in it, or its runs have other tasks or data than each
            other.
    """
    if not path.is_dir():
        raise InputError(f"There is no folder `{path}`.")
    if (path / RESULT_LINES).exists():
        return read_comparison(path)
    if (path / LOG).exists() or (path / RESULTS).exists():
        return ResultsFolder(path, "run", [line_of_run(path)])
    runs = [folder.name for folder in started(path)]
    if runs:
        raise InputError(
            f"`{path}` has no `{RESULT_LINES}`, so no run of a comparison has finished in it; it holds the folders "
            f"{listed(runs)}: `mtl-opt report` on one of them describes that run."
        )
    raise InputError(
        f"`{path}` is no folder of results: neither `{RESULT_LINES}` of `mtl-opt compare` nor `{LOG}` of "
        "`mtl-opt train` is in it."
    )


def read_comparison(path: Path) -> ResultsFolder:
    """Read the folder of a comparison.

    Args:
        path: Folder with `results.jsonl`.

    Returns:
        Its runs.

    Raises:
        InputError: If no run has finished, a line is none of a run, or runs do not belong together.
    """
    texts = [text for text in (path / RESULT_LINES).read_bytes().split(b"\n") if text.strip()]
    found: dict[str, dict[str, Any]] = {}
    torn = 0
    for number, text in enumerate(texts, start=1):
        line = parse_line(text)
        if line is not None and all(isinstance(line.get(key), kind) for key, kind in NEEDED.items()):
            found[line["run"]] = complete(line)
        elif number == len(texts) and line is None:
            torn = 1
        else:
            raise InputError(f"`{path / RESULT_LINES}`, line {number} is no result of a run.")
    unfinished = [folder.name for folder in started(path) if folder.name not in found]
    lines = list(found.values())
    if not any(line["role"] != "search" for line in lines):
        what = f"{len(unfinished)} runs have started: {listed(unfinished)}" if unfinished else "no run has started"
        raise InputError(f"`{path}` has no finished run yet; {what}.")
    refuse_strangers(path, lines)
    return ResultsFolder(path, "comparison", lines, unfinished, torn)


NEEDED = {"run": str, "combiner": str, "seed": int, "tasks": list, "metrics": dict}
"""Keys without which a line is no result of a run."""


def complete(line: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys that lines of earlier releases lack.

    Args:
        line: A line of `results.jsonl`.

    Returns:
        The line with `role`, `method`, `directions`, `provenance`, `config`.
    """
    single = line["combiner"] == "single"
    defaults: dict[str, Any] = {
        "role": "baseline" if single else "method",
        "method": line["combiner"],
        "task": None,
        "provenance": {},
        "config": {},
        "non_finite": [],
        "before": {},
    }
    return {**defaults, **line}


def started(path: Path) -> Iterator[Path]:
    """Find the folders of runs.

    Args:
        path: Folder of a comparison.

    Yields:
        Folders below it in which a run has begun to write, by name.
    """
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and any((folder / name).exists() for name in (LOG, CONFIG, RESULTS)):
            yield folder


def refuse_strangers(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that cannot be compared with each other.

    Args:
        path: The folder, for the message.
        lines: All runs.

    Raises:
        InputError: If two runs have different tasks or data; says which and what differs.
    """
    methods = [line for line in lines if line["role"] != "baseline"] or list(lines)
    first = methods[0]
    if first["role"] != "baseline":
        for line in methods:
            if set(line["tasks"]) != set(first["tasks"]):
                raise InputError(
                    f"`{path}` cannot be pooled: run `{first['run']}` has the tasks {listed(first['tasks'])}, run "
                    f"`{line['run']}` has {listed(line['tasks'])}."
                )
        for line in lines:
            stray = [task for task in line["tasks"] if task not in first["tasks"]]
            if stray:
                raise InputError(
                    f"`{path}` cannot be pooled: baseline `{line['run']}` is of task `{stray[0]}`, which run "
                    f"`{first['run']}` does not have ({listed(first['tasks'])})."
                )
    hashed = [line for line in lines if line["provenance"].get("data_hash")]
    for line in hashed:
        here, there = hashed[0]["provenance"]["data_hash"], line["provenance"]["data_hash"]
        if here != there:
            raise InputError(
                f"`{path}` cannot be pooled: runs `{hashed[0]['run']}` and `{line['run']}` saw different data "
                f"(`data_hash` {here} and {there})."
            )


def line_of_run(path: Path) -> dict[str, Any]:
    """Describe a single run as `results.jsonl` would.

    Args:
        path: Folder of the run.

    Returns:
        Its line; `finished` says whether it has results.

    Raises:
        InputError: If its files cannot be read, or nothing has been logged yet.
    """
    import yaml

    try:
        results = json.loads((path / RESULTS).read_text(encoding="utf-8")) if (path / RESULTS).exists() else None
        config = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")) if (path / CONFIG).exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"`{path}`: the files of this run cannot be read ({str(error).splitlines()[0]}).") from error
    log = [parse_line(text) for text in (path / LOG).read_bytes().splitlines()] if (path / LOG).exists() else []
    rows = [row for row in log if row is not None]
    if results is None and not rows:
        raise InputError(f"`{path}` holds a run that has not logged anything yet.")
    last = rows[-1] if rows else {}
    values = results if results is not None else {}
    combiner = str(config.get("combiner", path.name))
    line = {
        "run": path.name,
        "combiner": combiner,
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


def tasks_of_run(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Find the names of a run's tasks.

    Args:
        config: Its configuration.
        rows: Lines of its log, and its results.

    Returns:
        Those that the configuration names, else those whose loss was measured.
    """
    named = config.get("only_tasks") or list(config.get("tasks") or {})
    if named:
        return [str(task) for task in named]
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("eval_") and key.endswith("_loss"))
    return [key.removeprefix("eval_").removesuffix("_loss") for key in keys]


def listed(names: Sequence[str], most: int = 6) -> str:
    """Write names in a sentence.

    Args:
        names: The names.
        most: How many are written out.

    Returns:
        Such as "`a`, `b` and 3 more".
    """
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
