"""`mtl-opt share`: train, measure the conflict of every block, make the worst private, train again, compare."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtl_opt.affinity.layer_conflict import (
    BlockConflict,
    conflicts,
    is_block,
    read_measurements,
    refuse_early_stop,
    train_measured,
)
from mtl_opt.errors import InputError
from mtl_opt.results import CONFIG_YAML, check_folder_of_runs, write_json, write_text
from mtl_opt.training.config.run_config import TrainConfig, to_yaml, train_config
from mtl_opt.training.processes import check_one_process
from mtl_opt.training.run.loop import train
from mtl_opt.training.setup.data import prepare
from mtl_opt.training.setup.sampler import build_sampler

logger = logging.getLogger(__name__)

SHARED = "shared"
"""Folder of the run with everything shared, which is measured."""


@dataclass(frozen=True)
class ShareOptions:
    """Which blocks `share_by_conflict` makes private.

    Attributes:
        k: Number of blocks, at least 1; None for a quarter of them, rounded up.
        threshold: Cosine from -1 to 1 below which a pair of tasks conflicts.
        steps: Steps that are measured, at least 1; None for all of the run.

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
    """Train with everything shared, make the most conflicting blocks private, train again, and compare.

    Both runs have the same seed, data order, steps and learning rate, and their adapters start as no change to the
    base. A call that was killed or stopped goes on where it was.

    Args:
        config: A run with `sharing: hard` and two tasks or more; both runs are written below its `output_dir`.
        options: Which blocks become private; default a quarter of them.

    Returns:
        What `comparison.json` holds: `blocks` with their conflict, the most conflicting first, the names of the
        `private` ones, and of both runs (`shared`, `selective`) `steps`, `conflict_rate`, `parameters` and `metrics`.

    Raises:
        InputError: If there is one task only, `k` is larger than the number of blocks, the folder is taken, or the
            run may stop early.
    """
    options = options or ShareOptions()
    output = Path(config.output_dir)
    check_start(config, output)
    _with_map(config, {"*": "private"}, output)  # settings that exclude private adapters must not show after hours
    data = prepare(config)
    if len(data.only(config.only_tasks).tasks) < 2:
        raise InputError("`mtl-opt share` needs at least two tasks: one task has no conflict.")
    total = build_sampler(config, data.only(config.only_tasks))[1]
    steps = min(options.steps or total, total)
    logger.info("Run 1 of 2: everything shared; the first %d of %d steps are measured.", steps, total)
    shared = train_measured(config, data, output / SHARED, steps, options.k or 1)
    found = conflicts(read_measurements(output / SHARED), options.threshold)
    private = choose_blocks(found, options.k)
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
    """Refuse a run that does not start from full sharing, several processes, and a folder that is taken."""
    check_one_process("share")
    refuse_early_stop("share", config)
    if config.sharing != "hard":
        raise InputError(f"`mtl-opt share` starts from `sharing: hard` and finds the map, got `{config.sharing}`.")
    if config.adapter_name_or_path is not None:
        raise InputError("`mtl-opt share` trains both runs from fresh adapters; leave `adapter_name_or_path` out.")
    check_folder_of_runs(output)


def choose_blocks(found: list[BlockConflict], k: int | None) -> list[str]:
    """Choose the most conflicting numbered blocks."""
    blocks = [one.block for one in found if is_block(one.block)]
    k = math.ceil(len(blocks) / 4) if k is None else k
    if not 1 <= k <= len(blocks):
        raise InputError(f"`k` must be at most {len(blocks)}, the blocks that have shared parameters.")
    return blocks[:k]


def _with_map(config: TrainConfig, map_: Mapping[str, str], folder: Path, resume: bool = False) -> TrainConfig:
    """Return the configuration with selective sharing by a map."""
    own = {"sharing": "selective", "sharing_args": {"map": dict(map_)}, "output_dir": str(folder)}
    return train_config({**asdict(config), **own, "resume_from_checkpoint": resume})


def _write_conflict(
    output: Path, found: list[BlockConflict], private: list[str], options: ShareOptions, steps: int
) -> None:
    """Write `layer_conflict.json`."""
    measured = read_measurements(output / SHARED)
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
    """Read how many parameters were trained, shared and by task."""
    return {key.removeprefix("params_"): value for key, value in results.items() if key.startswith("params_")}


def _metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Read the metrics of the held-out rows."""
    return {key.removeprefix("eval_"): value for key, value in results.items() if key.startswith("eval_")}
