"""The files that a run and a comparison leave: their names, atomic writing, and the line of `results.jsonl`."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from mtl_opt.errors import InputError

# In the folder of a run.
CONFIG_YAML = "config.yaml"
ALL_RESULTS_JSON = "all_results.json"
TRAINER_LOG_JSONL = "trainer_log.jsonl"
CONFLICT_JSONL = "conflict.jsonl"
PREDICTIONS_JSONL = "generated_predictions.jsonl"
# In the folder of a run or in a checkpoint, beside the weights of an adapter or a model.
HEADS_JSON, HEADS_SAFETENSORS = "heads.json", "heads.safetensors"
SHARING_JSON, SHARING_SAFETENSORS = "sharing.json", "sharing.safetensors"
# In a checkpoint of a run.
TRAINER_STATE_JSON = "trainer_state.json"
# In the folder of a comparison.
RESULTS_JSONL = "results.jsonl"
GRID_JSON = "grid.json"
BUDGET_JSON = "budget.json"

SINGLE = "single"
"""Method of the single-task baselines."""


# Folders


def check_folder(folder: Path) -> None:
    """Refuse an `output_dir` that cannot be written to, before time is spent on what would go there."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # such as a name that is too long
        raise InputError(f"`output_dir`: `{folder}` cannot be used ({error.strerror}).") from error
    if not there.is_dir():
        raise InputError(f"`output_dir`: `{there}` is a file, not a folder.")
    if not os.access(there, os.W_OK | os.X_OK) and not (folder / ALL_RESULTS_JSON).exists():
        raise InputError(f"`output_dir`: `{there}` may not be written.")


def check_folder_of_runs(folder: Path) -> None:
    """Refuse an `output_dir` for several runs that cannot be written to or holds a single run."""
    check_folder(folder)
    if (folder / ALL_RESULTS_JSON).exists() or (folder / TRAINER_LOG_JSONL).exists():
        raise InputError(f"`output_dir`: `{folder}` already holds a single run; choose another folder.")


def holds_run(folder: Path) -> bool:
    """Return whether a folder holds a run or a comparison, finished or not."""
    known = (CONFIG_YAML, ALL_RESULTS_JSON, TRAINER_LOG_JSONL, RESULTS_JSONL)
    weights = ("adapter_config.json", "model.safetensors")
    return any((folder / name).exists() for name in (*known, *weights)) or bool(checkpoints(folder))


def checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a run in the order of their steps."""
    found = [p for p in folder.glob("checkpoint-*") if p.is_dir() and p.name.split("-", 1)[1].isdecimal()]
    return sorted(found, key=lambda p: int(p.name.split("-", 1)[1]))


# Writing and reading of any of the files


def write_text(path: Path, content: str) -> None:
    """Write a file atomically: a reader finds the old content or the new, never a part."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"`output_dir`: `{path.parent}` cannot be written ({error.strerror}).") from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_results(folder: Path) -> dict[str, Any] | None:
    """Read `all_results.json` of a run; None while the run is not finished."""
    path = folder / ALL_RESULTS_JSON
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` cannot be read ({error}).") from error


def json_line(value: Mapping[str, Any]) -> str:
    """Format one line of a `.jsonl` file."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def parse_json_line(line: bytes) -> dict[str, Any] | None:
    """Parse one line of a log; None where it is torn."""
    try:
        row = json.loads(line)
    except ValueError:  # also broken UTF-8: a line can be torn inside a Chinese character
        return None
    return row if isinstance(row, dict) else None


def read_json_lines(path: Path, key: str, what: str) -> tuple[list[dict[str, Any]], int | None]:
    """Read objects that all have `key`, and the byte at which a last line torn by a kill begins.

    An `InputError` names the line that is no `what`, where it is not the last one.
    """
    found: list[dict[str, Any]] = []
    begin = 0
    texts = path.read_bytes().split(b"\n")
    for number, text in enumerate(texts, start=1):
        row = parse_json_line(text)
        if row is not None and key in row:
            found.append(row)
        elif text.strip():
            if any(rest.strip() for rest in texts[number:]):
                raise InputError(f"`{path}`, line {number} is no {what}.")
            return found, begin
        begin += len(text) + 1
    return found, None


# The line of `results.jsonl`


class RunCosts(TypedDict, total=False):
    """What a run took; the same keys in `all_results.json` and in a line of `results.jsonl`."""

    conflict_rate: float | None
    steps_per_second: float | None
    peak_memory_mb: float | None
    train_runtime: float | None  # seconds in steps
    evaluation_runtime: float | None  # seconds
    overhead_seconds: float | None  # outside of steps and evaluation
    steps: int | None
    rows: dict[str, int] | None  # task -> rows delivered
    pull: dict[str, float] | None  # task -> share of the summed scales of the task gradients


class ResultLine(RunCosts, total=False):
    """One line of `results.jsonl`: what a run was, what it measured and took, and how to repeat it.

    Lines of earlier releases lack keys, see `complete_line`.
    """

    run: str  # name of its folder
    role: str  # "method", "baseline" or "search"
    method: str  # row of the tables; `SINGLE` for a baseline
    combiner: str
    sharing: str
    mixing: str
    norm_matched: bool
    learning_rate: float
    seed: int
    task: str | None  # the only task of a baseline
    tasks: list[str]
    auxiliary: list[str]  # those of the tasks that count in no mean
    metrics: dict[str, float | None]  # `eval_{task}_{metric}`; None where it is not finite
    non_finite: list[str]  # what diverged, in words
    before: dict[str, float]  # the metrics of the untrained model
    directions: dict[str, bool]  # metric -> whether higher is better
    main_metric: dict[str, str]  # task -> metric
    eval_rows: dict[str, int | None]
    provenance: dict[str, Any]
    config: dict[str, Any]
    search_score: float | None  # of a search for the learning rate only


def run_costs(results: Mapping[str, Any]) -> RunCosts:
    """Read what a run took from its `all_results.json`."""
    return {
        "conflict_rate": results.get("conflict_rate"),
        "steps_per_second": results.get("steps_per_second"),
        "peak_memory_mb": results.get("peak_memory_mb"),
        "train_runtime": results.get("train_runtime"),
        "evaluation_runtime": results.get("evaluation_runtime"),
        "overhead_seconds": results.get("overhead_seconds"),
        "steps": results.get("train_steps"),
        "rows": results.get("rows"),
        "pull": results.get("pull"),
    }


def untrained_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Read the metrics of the untrained model from `all_results.json`."""
    return {key.removeprefix("before_"): value for key, value in results.items() if key.startswith("before_")}


def append_result_line(folder: Path, line: ResultLine) -> None:
    """Append to `results.jsonl`, on a line of its own even where a kill came before the last line break."""
    path = folder / RESULTS_JSONL
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    line_break = "\n" if written and not written.endswith(b"\n") else ""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line_break + json_line(line))


def heal_result_lines(folder: Path) -> dict[str, ResultLine]:
    """Read `results.jsonl` by name of the run, and drop a torn last line from the file."""
    path = folder / RESULTS_JSONL
    if not path.exists():
        return {}
    lines, torn_at = read_json_lines(path, "run", "result of a run")
    if torn_at is not None:
        os.truncate(path, torn_at)
    return {line["run"]: cast("ResultLine", line) for line in lines}


def comparison_lines(folder: Path) -> tuple[list[dict[str, Any]], bool]:
    """Read what a comparison has written so far, and whether its last line is torn; the file is left alone."""
    path = folder / RESULTS_JSONL
    if not folder.is_dir():
        raise InputError(f"There is no folder `{folder}`.")
    if not path.exists() or not path.read_bytes().strip():
        planned = planned_runs(folder)
        runs = f": none of its {len(planned)} runs is finished" if planned else ""
        raise InputError(
            f"`{folder}` holds no results of `mtl-opt compare` (`{RESULTS_JSONL}` is missing or empty){runs}."
        )
    lines, torn_at = read_json_lines(path, "run", "result of a run")
    if not lines:
        raise InputError(f"`{folder}` holds no results of `mtl-opt compare` (`{RESULTS_JSONL}` has no complete line).")
    return list({line["run"]: line for line in lines}.values()), torn_at is not None


def read_comparison(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read what a comparison has written so far.

    Args:
        folder: Its `output_dir`.

    Returns:
        The lines of `results.jsonl`, and sentences on what is missing: runs without a result, a torn last line.

    An `InputError` says that there is no such folder, or no result in it.
    """
    lines, torn = comparison_lines(folder)
    notes = [f"The last line of `{RESULTS_JSONL}` is torn and was left out."] if torn else []
    planned, names = planned_runs(folder), {line["run"] for line in lines}
    missing = [name for name in planned if name not in names]
    if missing:
        shown = ", ".join(f"`{name}`" for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
        notes.append(f"Half-finished: {len(missing)} of {len(planned)} runs have no result yet ({shown}).")
    return lines, notes


def planned_runs(folder: Path) -> list[str]:
    """Read the names of all runs of a comparison, which it writes before the first one starts."""
    try:
        return [str(name) for name in json.loads((folder / GRID_JSON).read_text(encoding="utf-8"))["runs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def role_of(line: Mapping[str, Any]) -> str:
    """Return what a run is for: "method", "baseline" or "search"."""
    return str(line.get("role") or ("baseline" if line["combiner"] == SINGLE else "method"))


def method_of(line: Mapping[str, Any]) -> str:
    """Return the method of a run, by which lines are grouped."""
    return SINGLE if role_of(line) == "baseline" else str(line.get("method") or line["combiner"])


def complete_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys that lines of earlier releases lack."""
    missing: dict[str, Any] = {"task": None, "provenance": {}, "config": {}, "non_finite": [], "before": {}}
    known = {key: value for key, value in line.items() if value is not None}
    return missing | {"role": role_of(line)} | known | {"method": method_of(line)}


# The same line, rebuilt from the folder of a single run


def line_of_run(folder: Path) -> dict[str, Any]:
    """Describe a single run, finished or not, as `results.jsonl` would."""
    results, config, log = _files_of_run(folder)
    last = log[-1] if log else {}
    values = results if results is not None else {}
    combiner, method = _update_of(config, folder.name)
    line = {
        "run": folder.name,
        "combiner": combiner,
        "method": method,
        "seed": config.get("seed", 0),
        "tasks": _tasks_of_run(config, [*log, values]),
        "metrics": {key: value for key, value in values.items() if key.startswith("eval_")},
        "before": untrained_metrics(values),
        "config": config,
        "finished": results is not None,
        "total_steps": last.get("total_steps", values.get("train_steps")),
        "provenance": values.get("provenance") or {},
        **run_costs(values),
        "steps": values.get("train_steps", last.get("current_steps")),
    }
    return complete_line(line)


def _files_of_run(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any], list[dict[str, Any]]]:
    """Read results (None while unfinished), configuration and log of a run."""
    import yaml

    results_file, config_file, log_file = (folder / n for n in (ALL_RESULTS_JSON, CONFIG_YAML, TRAINER_LOG_JSONL))
    try:
        results = json.loads(results_file.read_text(encoding="utf-8")) if results_file.exists() else None
        config = yaml.safe_load(config_file.read_text(encoding="utf-8")) if config_file.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"`{folder}`: the files of this run cannot be read ({str(error).splitlines()[0]}).") from error
    if not isinstance(config, dict) or not isinstance(results, dict | None):
        raise InputError(f"`{folder}`: `{CONFIG_YAML}` or `{ALL_RESULTS_JSON}` is not that of a run.")
    log = [parse_json_line(text) for text in log_file.read_bytes().splitlines()] if log_file.exists() else []
    rows = [row for row in log if row is not None]
    if results is None and not rows:
        raise InputError(f"`{folder}` holds a run that has not logged anything yet.")
    return results, config, rows


def _update_of(config: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Name combiner and method of a run; one that only monitors takes the plain sum, whatever `combiner` says."""
    combiner = str(config.get("combiner", name))
    if not config.get("monitor_only"):
        return combiner, combiner
    watched = "" if combiner == "sum" else f"; {combiner} watched"
    return "sum", f"sum (monitor only{watched})"


def _tasks_of_run(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the tasks of a run, from its configuration or the metrics it has logged."""
    named = config.get("only_tasks") or list(config.get("tasks") or {})
    if named:
        return [str(task) for task in named]
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("eval_") and key.endswith("_loss"))
    return [key.removeprefix("eval_").removesuffix("_loss") for key in keys]
