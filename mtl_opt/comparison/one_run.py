"""One run of a comparison, wherever it takes place: in this process or in a worker."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mtl_opt.comparison.provenance import hardware
from mtl_opt.errors import DivergedError, InputError
from mtl_opt.results import ALL_RESULTS_JSON, checkpoints
from mtl_opt.training.config.keys import DataKeys
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.run.checkpoint import read_state
from mtl_opt.training.run.loop import train
from mtl_opt.training.setup.data import Prepared, prepare

DATA_KEYS = tuple(f.name for f in fields(DataKeys) if f.name != "only_tasks")
"""Keys that decide which rows are read and how; all tasks are prepared, a baseline then takes its own."""


class DataCache:
    """Prepare data once for all runs that read the same rows with the same tokenizer."""

    def __init__(self) -> None:
        self.data: dict[str, Prepared] = {}
        self.untrained: dict[str, dict[str, dict[str, float]]] = {}

    def of(self, config: TrainConfig) -> Prepared:
        """Return the data of a run, prepared or cached, with the metrics of its untrained model as far as known."""
        keys = {key: getattr(config, key) for key in (*DATA_KEYS, "model_name_or_path")}
        seeds = {"seed": config.seed, "data_seed": config.data_seed} if config.streaming else {}
        name = json.dumps({**keys, **seeds}, sort_keys=True, default=str)
        if name not in self.data:
            self.data[name] = prepare(config)
        # With hard sharing and no heads every run starts as the base model, whatever its seed.
        begins_alike = config.sharing == "hard" and not config.heads
        start = "" if begins_alike else f"{config.sharing} {config.sharing_args} {config.seed}"
        found = replace(self.data[name], untrained=self.untrained.setdefault(f"{name} {start}", {}))
        # A baseline has nobody whose adapters could be held near to its own.
        return found if len(config.only_tasks or found.tasks) > 1 else without_penalties(found)


def without_penalties(data: Prepared) -> Prepared:
    """Drop the penalty on the distance between tasks, for a task that is trained alone."""
    return replace(data, settings={task: replace(one, penalty=None) for task, one in data.settings.items()})


def run_one(name: str, config: TrainConfig, cache: DataCache) -> dict[str, Any]:
    """Train one run; one that diverges has a reply, too."""
    try:
        return {"results": train(config, cache.of(config)), "diverged": None, "hardware": hardware()}
    except DivergedError as error:
        return {"results": None, "diverged": str(error), "hardware": hardware()}
    except InputError as error:
        raise InputError(f"Run `{name}`: {error}") from error


def seconds_before(config: TrainConfig) -> float:
    """Read the seconds that earlier calls spent on a run in steps and evaluation."""
    folder = Path(config.output_dir)
    try:
        if (folder / ALL_RESULTS_JSON).exists():
            return busy_seconds(json.loads((folder / ALL_RESULTS_JSON).read_text(encoding="utf-8")))
        totals = read_state(checkpoints(folder)[-1])["totals"] if checkpoints(folder) else {}
    except (InputError, OSError, ValueError, KeyError):
        return 0.0
    return float(totals.get("seconds", 0) + totals.get("evaluating", 0))


def busy_seconds(results: Mapping[str, Any]) -> float:
    """Sum the seconds in steps and evaluation."""
    return float((results.get("train_runtime") or 0) + (results.get("evaluation_runtime") or 0))
