"""`mtl-opt share`: run, read the conflict of every block, make the worst private, run again, compare."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mtl_opt.affinity.layer_conflict import BlockConflict, LayerWatch, conflicts, is_block, read_measured
from mtl_opt.errors import InputError
from mtl_opt.results import CONFIG_YAML, check_folder_of_runs, write_json, write_text
from mtl_opt.training.config.run_config import TrainConfig, to_yaml, train_config
from mtl_opt.training.processes import world_size
from mtl_opt.training.run.loop import train
from mtl_opt.training.setup.data import Prepared, prepare
from mtl_opt.training.setup.sampler import build_sampler

logger = logging.getLogger(__name__)

SHARED = "shared"
"""Folder of the run that is measured."""

LEAST_WINDOW = 20


@dataclass(frozen=True)
class ShareOptions:
    """Say what is made private.

    Attributes:
        k: Blocks to make private; None for a quarter of them, rounded up.
        threshold: A pair of tasks conflicts where its cosine is below this.
        steps: Steps that are measured; None for all of the run.

    Raises:
        InputError: If a value is not allowed.
    """

    k: int | None = None
    threshold: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("steps", self.steps)):
            if value is not None and value < 1:
                raise InputError(f"`--{name}` must be at least 1, got {value}.")
        if not -1 <= self.threshold <= 1:
            raise InputError(f"`--threshold` must be a cosine from -1 to 1, got {self.threshold}.")


def share_by_conflict(config: TrainConfig, options: ShareOptions | None = None) -> dict[str, Any]:
    """Find the blocks in which the tasks fight most, make them private, and say what it brought.

    Both runs have the same seed, data order, steps and learning rate; adapters start as no change to the base in both.
    Killed or stopped, the same call goes on where it was.
    """
    options = options or ShareOptions()
    output = Path(config.output_dir)
    check_start(config, output)
    _with_map(config, {"*": "private"}, output)  # what does not go with private adapters must not show after hours
    data = prepare(config)
    if len(data.only(config.only_tasks).tasks) < 2:
        raise InputError("`mtl-opt share` needs at least two tasks: one task has no conflict.")
    total = build_sampler(config, data.only(config.only_tasks))[1]
    steps = min(options.steps or total, total)
    logger.info("Run 1 of 2: everything shared; the first %d of %d steps are measured.", steps, total)
    shared = measured_run(config, data, output / SHARED, steps, options.k or 1)
    found = conflicts(read_measured(output / SHARED), options.threshold)
    private = choose(found, options.k)
    map_ = dict.fromkeys(private, "private")
    _write_conflict(output, found, private, options, steps)
    write_text(output / CONFIG_YAML, to_yaml(_with_map(config, map_, Path(f"{output}-selective"))))
    logger.info("Run 2 of 2: private %s.", ", ".join(private))
    again = _with_map(config, map_, output / f"selective-{len(private)}", resume=True)
    selective = train(again, data)
    comparison = {
        "blocks": [{**asdict(one), "private": one.block in private} for one in found],
        "private": private,
        "seed": config.seed,
        "steps": {"shared": shared["train_steps"], "selective": selective["train_steps"]},
        "conflict_rate": {"shared": shared["conflict_rate"], "selective": selective["conflict_rate"]},
        "parameters": {"shared": _parameters(shared), "selective": _parameters(selective)},
        "metrics": {"shared": _metrics(shared), "selective": _metrics(selective)},
    }
    write_json(output / "comparison.json", comparison)
    return comparison


def check_start(config: TrainConfig, output: Path) -> None:
    """Refuse what cannot be measured from full sharing."""
    if world_size() > 1:
        raise InputError(f"`mtl-opt share` runs in one process, got {world_size()}; `mtl-opt train` takes several.")
    if config.sharing != "hard":
        raise InputError(f"`mtl-opt share` starts from `sharing: hard` and finds the map, got `{config.sharing}`.")
    check_folder_of_runs(output)


def measured_run(
    config: TrainConfig, data: Prepared, folder: Path, steps: int, least_blocks: int = 1
) -> dict[str, Any]:
    """Train with everything as configured, and measure every block on the way."""
    window = config.gradient_window
    if not window and config.denoised is None and config.gradient_engine != "two_pass" and steps >= LEAST_WINDOW:
        window = steps // 10 * 10
        logger.info("Noise is corrected over 10 windows of %d steps: one more buffer of rows.", window // 10)
    settings = {**asdict(config), "output_dir": str(folder), "resume_from_checkpoint": True, "gradient_window": window}
    return train(train_config(settings), data, partial(LayerWatch, steps=steps, least_blocks=least_blocks))


def choose(found: list[BlockConflict], k: int | None) -> list[str]:
    """Take the most conflicting numbered blocks."""
    blocks = [one.block for one in found if is_block(one.block)]
    k = math.ceil(len(blocks) / 4) if k is None else k
    if not 1 <= k <= len(blocks):
        raise InputError(f"`k` must be at most {len(blocks)}, the blocks that have shared parameters.")
    return blocks[:k]


def _with_map(config: TrainConfig, map_: Mapping[str, str], folder: Path, resume: bool = False) -> TrainConfig:
    """Change a configuration to a map."""
    own = {"sharing": "selective", "sharing_args": {"map": dict(map_)}, "output_dir": str(folder)}
    return train_config({**asdict(config), **own, "resume_from_checkpoint": resume})


def _write_conflict(
    output: Path, found: list[BlockConflict], private: list[str], options: ShareOptions, steps: int
) -> None:
    """Write what was measured of every block."""
    measured = read_measured(output / SHARED)
    write_json(
        output / "layer_conflict.json",
        {
            "tasks": measured.tasks,
            "threshold": options.threshold,
            "steps": steps,
            "windows": max(len(windows) for windows in measured.windows.values()),
            "noise_corrected": measured.corrected,
            "blocks": [{**asdict(one), "private": one.block in private} for one in found],
        },
    )


def _parameters(results: Mapping[str, Any]) -> dict[str, int]:
    """Count what was trained."""
    return {key.removeprefix("params_"): value for key, value in results.items() if key.startswith("params_")}


def _metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Take the measures of the held-out rows."""
    return {key.removeprefix("eval_"): value for key, value in results.items() if key.startswith("eval_")}
