"""The grid of a comparison: combiners × sharing × mixing × norm matching × seeds, and the single-task baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mtl_opt.results import SINGLE
from mtl_opt.training.config.comparison import VARIED
from mtl_opt.training.config.comparison_keys import CompareConfig
from mtl_opt.training.config.run_config import TrainConfig, train_config
from mtl_opt.training.setup.combiner import WRAPPERS

NOT_WRAPPED = {key: getattr(TrainConfig, key) for key in WRAPPERS}
"""Settings of a baseline: with one task there is nothing to wrap."""


@dataclass(frozen=True)
class Method:
    """One row of the tables, or the baseline of one task.

    Attributes:
        label: What tells it from the others, as the tables show it.
        name: The same as part of a folder's name.
        combiner: Name of its combiner; `SINGLE` for a baseline.
        task: The only task of a baseline; None for a method.
        own: Raw settings in which it differs from the other methods.
    """

    label: str
    name: str
    combiner: str
    task: str | None
    own: Mapping[str, Any]


@dataclass(frozen=True)
class GridRun:
    """One run of the comparison.

    Attributes:
        name: Name of its folder.
        role: "method", "baseline" or "search".
        method: The method it trains.
        config: Its configuration.
    """

    name: str
    role: str
    method: Method
    config: TrainConfig


def methods_of(config: CompareConfig, shared: Mapping[str, Any], tasks: Sequence[str]) -> list[Method]:
    """List the methods, then a baseline per task."""
    matched = [False, True] if config.norm_matched == "both" else [bool(config.norm_matched)]
    nothing: list[str | None] = [None]
    grid = product(config.combiners, config.sharings or nothing, config.mixings or nothing, matched)
    found = []
    for combiner, sharing, mixing, matching in grid:
        own: dict[str, Any] = {"combiner": combiner, "combiner_args": config.combiner_args.get(combiner, {})}
        own["norm_matched"] = matching
        for key, value in (("sharings", sharing), ("mixings", mixing)):
            one, arguments = VARIED[key]
            own |= {} if value is None else {one: value, arguments: (shared.get(arguments) or {}).get(value, {})}
        # An axis with one value varies nothing and stays out of the label.
        parts = [combiner]
        parts += [sharing] if sharing and len(config.sharings or []) > 1 else []
        parts += [mixing] if mixing and len(config.mixings or []) > 1 else []
        parts += ["norm_matched"] if matching and len(matched) > 1 else []
        found.append(Method(" · ".join(parts), "-".join(parts), combiner, None, own))
    return found + [_baseline(config, task) for task in tasks if config.baselines]


def _baseline(config: CompareConfig, task: str) -> Method:
    """Describe the training of one task alone: one model or adapter, nothing shared, mixed or combined."""
    own: dict[str, Any] = {"combiner": "sum", "only_tasks": [task], **NOT_WRAPPED, "sharing": "hard"}
    own |= {"sharing_args": {}} | ({} if config.mixings is None else {"mixing_args": {}})
    return Method(SINGLE, f"{SINGLE}-{task}", SINGLE, task, own)


def final_run(
    method: Method, seed: int, shared: Mapping[str, Any], rate: float | None = None, steps: int | None = None
) -> GridRun:
    """Configure a run of the tables."""
    name = f"{method.name}-seed{seed}"
    role = "baseline" if method.task else "method"
    return GridRun(name, role, method, run_config(name, method, seed, shared, rate, steps))


def run_config(
    name: str, method: Method, seed: int, shared: Mapping[str, Any], rate: float | None, steps: int | None
) -> TrainConfig:
    """Merge shared and own settings; a run that was interrupted goes on from its newest checkpoint."""
    own = {"seed": seed, "output_dir": str(Path(shared["output_dir"]) / name), "resume_from_checkpoint": True}
    own |= {} if rate is None else {"learning_rate": rate}
    own |= {} if steps is None else {"max_steps": steps}
    return train_config({**shared, **method.own, **own})
