"""`budget`: the same number of steps, or the same time in steps, for every run of a comparison."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from mtl_opt.comparison.grid import Method, final_run
from mtl_opt.comparison.one_run import DataCache
from mtl_opt.errors import InputError
from mtl_opt.results import BUDGET_JSON, write_json
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.loop import take_steps
from mtl_opt.training.run.writers import NoWriters

logger = logging.getLogger(__name__)

PILOT, WARM_UP = 10, 3
"""Steps of a pilot, and how many of the first are not timed."""


def steps_of(
    budget: str | None, methods: Sequence[Method], seed: int, shared: Mapping[str, Any], cache: DataCache
) -> dict[str, int]:
    """Convert the budget to steps by name of the method; empty without a budget."""
    if budget is None:
        return {}
    amount, unit = budget.split()
    if unit == "steps":
        return {method.name: int(amount) for method in methods}
    # Time becomes steps once and is kept in a file: every run then has its whole learning-rate schedule, and the same
    # call gives the same numbers.
    path = Path(shared["output_dir"]) / BUDGET_JSON
    known: dict[str, Any] = {"budget": budget, "steps": {}}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
    if known["budget"] != budget:
        raise InputError(
            f"`{path.parent}` holds results under `budget: {known['budget']}`, now it is `{budget}`: choose another "
            "`output_dir`."
        )
    steps: dict[str, int] = known["steps"]
    for method in methods:
        if method.name not in steps:
            pilot = final_run(method, seed, shared, steps=PILOT).config
            seconds = seconds_per_step(pilot, cache)
            steps[method.name] = max(1, round(float(amount) / seconds))
            logger.info(
                "%s: %.0f ms a step, so %d steps in %s.", method.name, 1e3 * seconds, steps[method.name], budget
            )
            write_json(path, {"budget": budget, "steps": steps})
    return steps


def seconds_per_step(config: TrainConfig, cache: DataCache) -> float:
    """Time a few steps, without evaluating or writing anything."""
    untouched: dict[str, Any] = {"early_stopping_patience": None, "load_best_model_at_end": False}
    config = replace(config, eval_steps=None, save_steps=None, **untouched)
    run = build_run(config, cache.of(config).only(config.only_tasks))
    try:
        return median(take_steps(run, NoWriters())[WARM_UP:])
    finally:
        run.loader.close()
