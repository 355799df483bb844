"""Compare combiners fairly: the same data order and initialisation per seed, single-task baselines, one line a run."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from mtl_opt.errors import InputError
from mtl_opt.training.checkpoint import FREE_KEYS
from mtl_opt.training.combiner import WRAPPERS, build_combiner
from mtl_opt.training.config import CompareConfig, TrainConfig, train_config
from mtl_opt.training.loop import train
from mtl_opt.training.outputs import check_folder, read_results
from mtl_opt.training.prepare import Prepared, prepare
from mtl_opt.training.processes import world_size

logger = logging.getLogger(__name__)

RESULT_LINES = "results.jsonl"
SINGLE = "single"
"""Name of the single-task baselines among the combiners."""

NOT_WRAPPED = {key: getattr(TrainConfig, key) for key in WRAPPERS}
"""Settings of a baseline: with one task there is nothing to wrap."""


@dataclass(frozen=True)
class Entry:
    """One run of the comparison.

    Attributes:
        name: Name of its folder.
        combiner: The method, or "single" for a baseline.
        seed: Its seed.
        task: The only task of a baseline.
        config: Its configuration.
    """

    name: str
    combiner: str
    seed: int
    task: str | None
    config: TrainConfig


def compare(config: CompareConfig, shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train every combiner on every seed, and every task alone; runs that have a result are skipped.

    Args:
        config: What is compared.
        shared: Raw settings that every run shares.

    Returns:
        The lines of `results.jsonl` of all runs of this comparison, in order.

    Raises:
        InputError: If the output folder holds a comparison with other settings, or several processes run this.
    """
    if world_size() > 1:
        raise InputError(f"`mtl-opt compare` runs in one process, got {world_size()}; `mtl-opt train` takes several.")
    base = train_config(shared)
    output = Path(base.output_dir)
    check_folder(output)
    if read_results(output) is not None or (output / "trainer_log.jsonl").exists():
        raise InputError(f"`output_dir`: `{output}` already holds a single run; choose another folder.")
    data = prepare(base)
    entries = list(_entries(config, shared, data))
    known = _known_lines(output / RESULT_LINES)
    _refuse_other_settings(entries, known, output)
    todo = [entry for entry in entries if entry.name not in known]
    for entry in todo:  # a bad argument of the last method must not show after hours
        build_combiner(entry.config, data.only(entry.config.only_tasks).tasks, data.settings)
    if len(todo) < len(entries):
        logger.info("%d of %d runs have their result already.", len(entries) - len(todo), len(entries))
    with tqdm(todo, desc="comparing", disable=None) as bar, logging_redirect_tqdm():
        for entry in bar:
            bar.set_postfix_str(entry.name)
            with _details_once(first=entry is todo[0]):
                line = _line(entry, _train(entry, data), data)
            known[entry.name] = line
            _append(output / RESULT_LINES, line)
            logger.info("%s: %s", entry.name, _short(line))
    return [known[entry.name] for entry in entries]


def _train(entry: Entry, data: Prepared) -> dict[str, Any]:
    """Train one run, and say which one it was where something does not fit."""
    try:
        return train(entry.config, data)
    except InputError as error:
        raise InputError(f"Run `{entry.name}`: {error}") from error


@contextmanager
def _details_once(first: bool) -> Iterator[None]:
    """Log engine, sizes and loading of a model for the first run only: they are the same for all."""
    details = logging.getLogger("mtl_opt.training.run")
    before, loading = details.level, is_progress_bar_enabled()
    if not first:
        details.setLevel(logging.WARNING)
        disable_progress_bar()
    try:
        yield
    finally:
        details.setLevel(before)
        if loading:
            enable_progress_bar()


def _entries(config: CompareConfig, shared: Mapping[str, Any], data: Prepared) -> Iterator[Entry]:
    """List the runs: seed by seed, so that an interrupted comparison has complete seeds."""
    for seed in config.seeds:
        for combiner in config.combiners:
            arguments = config.combiner_args.get(combiner, {})
            own = {"combiner": combiner, "combiner_args": arguments}
            yield _entry(f"{combiner}-seed{seed}", combiner, seed, None, shared, own)
        for task in data.tasks if config.baselines else []:
            own = {"combiner": "sum", "only_tasks": [task], **NOT_WRAPPED}
            yield _entry(f"{SINGLE}-{task}-seed{seed}", SINGLE, seed, task, shared, own)


def _entry(
    name: str, combiner: str, seed: int, task: str | None, shared: Mapping[str, Any], own: Mapping[str, Any]
) -> Entry:
    """Build one run; a run that was interrupted goes on from its newest checkpoint."""
    output = str(Path(shared["output_dir"]) / name)
    settings = {**shared, **own, "seed": seed, "output_dir": output, "resume_from_checkpoint": True}
    return Entry(name, combiner, seed, task, train_config(settings))


def _line(entry: Entry, results: Mapping[str, Any], data: Prepared) -> dict[str, Any]:
    """Write what a run gave as one line of `results.jsonl`."""
    return {
        "run": entry.name,
        "combiner": entry.combiner,
        "seed": entry.seed,
        "task": entry.task,
        "tasks": [entry.task] if entry.task else (entry.config.only_tasks or data.tasks),
        "metrics": {key: value for key, value in results.items() if key.startswith("eval_")},
        "before": {k.removeprefix("before_"): v for k, v in results.items() if k.startswith("before_")},
        "conflict_rate": results["conflict_rate"],
        "steps_per_second": results["steps_per_second"],
        "peak_memory_mb": results["peak_memory_mb"],
        "train_runtime": results["train_runtime"],
        "config": asdict(entry.config),
    }


def _known_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Read the results there are; a last line torn by a kill is dropped."""
    if not path.exists():
        return {}
    lines = path.read_bytes().split(b"\n")  # bytes: a line can be torn inside a Chinese character
    known = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            known[line["run"]] = line
        except (ValueError, KeyError, TypeError):
            if any(rest.strip() for rest in lines[number:]):
                raise InputError(f"`{path}`, line {number} is no result of a run.") from None
            os.truncate(path, sum(len(before) + 1 for before in lines[: number - 1]))
    return known


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line, on a line of its own even where a kill came before the last line break."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.read_bytes() if path.exists() else b""
    line_break = "\n" if written and not written.endswith(b"\n") else ""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line_break + json.dumps(line, ensure_ascii=False) + "\n")


def _refuse_other_settings(entries: list[Entry], known: Mapping[str, Any], output: Path) -> None:
    """Refuse to put runs with different settings into one table."""
    for entry in entries:
        before = known.get(entry.name, {}).get("config", {})
        for key, value in asdict(entry.config).items():
            if key in before and key not in FREE_KEYS - {"max_new_tokens"} and before[key] != value:
                raise InputError(
                    f"`{output}` holds results with `{key}` = {before[key]!r}, now it is {value!r}: runs with "
                    "different settings cannot share a table; choose another `output_dir`."
                )


def _short(line: Mapping[str, Any]) -> str:
    """Sum a run up in a few words."""
    return ", ".join(
        f"{key.removeprefix('eval_').removesuffix('_exact_match').removesuffix('_accuracy')} {100 * value:.0f} %"
        for key, value in line["metrics"].items()
        if key.endswith(("_exact_match", "_accuracy"))
    )
