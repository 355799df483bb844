"""Everything a report shows, as one JSON object, thinned out to what a page can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import metadata
from typing import Any

from mtl_opt.report.page.answers import all_answers
from mtl_opt.report.page.commands import reproduce
from mtl_opt.report.page.conflicts import all_conflicts
from mtl_opt.report.page.curves import all_curves, metric_keys, round_number
from mtl_opt.report.read.folder import ResultsFolder
from mtl_opt.report.summary.assembly import shares_text, summarise
from mtl_opt.report.summary.numbers import Summary

COSTS = ("steps_per_second", "peak_memory_mb", "train_runtime", "overhead_seconds", "conflict_rate", "steps")

Lines = Sequence[Mapping[str, Any]]


def contents(folder: ResultsFolder) -> dict[str, Any]:
    """Collect the data of a report.

    An `InputError` says in what two runs disagree so that they cannot stand in one report.
    """
    comparison = folder.kind == "comparison"
    summary = summarise(folder.lines) if comparison else None
    tasks = summary.tasks if summary else folder.lines[0]["tasks"]
    lines = folder.of_role("method", "baseline")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line["method"], []).append(line)
    by_seed = sorted(folder.of_role("method"), key=lambda line: line["seed"])
    return {
        "kind": folder.kind,
        "name": folder.path.resolve().name,
        "made": datetime.now().astimezone().isoformat(" ", "minutes"),
        "version": metadata.version("mtl_opt"),
        "finished": all(line.get("finished", True) for line in lines),
        "tasks": list(tasks),
        "methods": [described(name, of) for name, of in groups.items()],
        "runs": [shown_run(line) for line in folder.lines],
        "metric_keys": metric_keys(
            tasks, dict.fromkeys(k for line in lines for k in [*line["metrics"], *line["before"]])
        ),
        "summary": shown_summary(summary) if summary else None,
        "curves": all_curves({name: [folder.run_folder(line) for line in of] for name, of in groups.items()}, tasks),
        "conflicts": all_conflicts([(line, folder.run_folder(line)) for line in by_seed], tasks),
        "predictions": all_answers([(line, folder.run_folder(line)) for line in by_seed], tasks),
        "reproduce": reproduce(folder),
        "notices": notices(folder),
    }


def described(name: str, lines: Lines) -> dict[str, Any]:
    """Describe a method."""
    role = lines[0]["role"]
    seeds = sorted({line["seed"] for line in lines})
    return {"name": name, "label": name, "role": role, "seeds": seeds}


def shown_run(line: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a line of `results.jsonl` to what the page shows."""
    known = ("run", "role", "method", "seed", "task")
    shown: dict[str, Any] = {key: line[key] for key in known}
    shown |= {key: round_number(line.get(key), 5) for key in (*COSTS, "total_steps", "learning_rate")}
    shown["metrics"] = {key: round_number(value, 5) for key, value in line["metrics"].items()}
    shown["before"] = {key: round_number(value, 5) for key, value in line["before"].items()}
    named = {text.partition(":")[0] for text in line["non_finite"]}
    found = [f"{k}: {v}" for k, v in line["metrics"].items() if round_number(v) is None and k not in named]
    shown["non_finite"] = [*map(str, line["non_finite"]), *found]
    return shown


def shown_summary(summary: Summary) -> dict[str, Any]:
    """Reduce a summary to what the page shows: values per seed only of the overall scores."""
    found = round_numbers(asdict(summary))
    for method in [*found["methods"], *([found["baselines"]] if found["baselines"] else [])]:
        nested = [score for scores in method["scores"].values() for score in scores.values()]
        flat = [score for key in ("changes", "macro", "micro", "costs") for score in method[key].values()]
        for score in [*nested, *flat, method["delta_m"], method["delta_m_loss"]]:
            score["seeds"] = len(score["seeds"])
            score["lost"] = sum(value is None for value in score.pop("values"))
    return found


def round_numbers(value: Any) -> Any:
    """Round all numbers in nested lists and mappings."""
    if isinstance(value, dict):
        return {str(key): round_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [round_numbers(entry) for entry in value]
    return round_number(value, 5) if isinstance(value, float) else value


def notices(folder: ResultsFolder) -> list[dict[str, Any]]:
    """List what a reader must know before reading the numbers."""
    found: list[dict[str, Any]] = []
    if folder.unfinished:
        found.append({"key": "unfinished", "n": len(folder.unfinished), "names": folder.unfinished})
    one = folder.lines[0]
    if folder.kind == "run" and not one["finished"]:
        found.append({"key": "running", "step": one["steps"], "total": one["total_steps"]})
    if folder.kind == "run" and len(one["tasks"]) > 1 and (shares := shares_text(one)):
        found.append({"key": "pull", "shares": shares})
    if folder.torn:
        found.append({"key": "torn"})
    broken = [
        f"{run['run']} {text.removeprefix('eval_')}"
        for run in (shown_run(line) for line in folder.lines)
        for text in run["non_finite"]
    ]
    if broken:
        found.append({"key": "non_finite", "names": broken})
    provenances = [line["provenance"] for line in folder.lines]
    differing = [
        name
        for name in ("mtl_opt", "torch", "transformers", "peft", "python", "git_commit", "hardware")
        if len({str(provenance.get(name)) for provenance in provenances if provenance}) > 1
    ]
    if differing:
        found.append({"key": "versions", "names": differing})
    if folder.kind == "comparison" and not any(provenance.get("data_hash") for provenance in provenances):
        found.append({"key": "no_hash"})
    return found
