"""A folder of results: its finished runs, and those without a result yet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.results import (
    ALL_RESULTS_JSON,
    CONFIG_YAML,
    RESULTS_JSONL,
    TRAINER_LOG_JSONL,
    comparison_lines,
    complete_line,
    line_of_run,
    planned_runs,
)


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
    if (path / RESULTS_JSONL).exists():
        return read_grid(path)
    if (path / TRAINER_LOG_JSONL).exists() or (path / ALL_RESULTS_JSON).exists():
        return ResultsFolder(path, "run", [line_of_run(path)])
    runs = [folder.name for folder in started(path)]
    if runs:
        raise InputError(
            f"`{path}` has no `{RESULTS_JSONL}`, so no run of a comparison has finished in it; it holds the folders "
            f"{listed(runs)}: `mtl-opt report` on one of them describes that run."
        )
    raise InputError(
        f"`{path}` is no folder of results: neither `{RESULTS_JSONL}` of `mtl-opt compare` nor "
        f"`{TRAINER_LOG_JSONL}` of `mtl-opt train` is in it."
    )


def read_grid(path: Path) -> ResultsFolder:
    """Read the folder of a comparison."""
    raw, torn = comparison_lines(path)
    for line in raw:
        if not all(isinstance(line.get(key), kind) for key, kind in NEEDED.items()):
            raise InputError(f"`{path / RESULTS_JSONL}`: `{line['run']}` is no result of a run.")
    lines = [complete_line(line) for line in raw]
    names = {line["run"] for line in lines}
    unfinished = list(dict.fromkeys([*planned_runs(path), *(folder.name for folder in started(path))]))
    unfinished = [name for name in unfinished if name not in names]
    if all(line["role"] == "search" for line in lines):
        raise InputError(f"`{path}` has no finished run yet, only the search for learning rates.")
    return ResultsFolder(path, "comparison", lines, unfinished, torn)


NEEDED = {"run": str, "combiner": str, "seed": int, "tasks": list, "metrics": dict}
"""Keys without which a line is no result of a run."""


def started(path: Path) -> Iterator[Path]:
    """Find the folders of runs."""
    for folder in sorted(path.iterdir()):
        files = (TRAINER_LOG_JSONL, CONFIG_YAML, ALL_RESULTS_JSON)
        if folder.is_dir() and any((folder / name).exists() for name in files):
            yield folder


def listed(names: Sequence[str], most: int = 6) -> str:
    """Write names in a sentence."""
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
