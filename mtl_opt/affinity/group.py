"""`mtl-opt group`: which tasks to train together, from how much they help each other."""

import logging
import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from mtl_opt.affinity.layer_conflict import read_measurements, refuse_early_stop, train_measured
from mtl_opt.affinity.task_affinity import LookaheadWatch, cosine_affinity, lookahead_affinity
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.results import check_folder_of_runs, write_json, write_text
from mtl_opt.training.config.run_config import TrainConfig, to_yaml, train_config
from mtl_opt.training.processes import check_one_process
from mtl_opt.training.run.loop import train
from mtl_opt.training.setup.data import prepare
from mtl_opt.training.setup.sampler import build_sampler

logger = logging.getLogger(__name__)

FOLDER = "measured"
"""Folder of the run in which affinity is measured."""

MEASURES = {
    "cosine": "mean cosine of the task gradients, corrected for noise where 20 steps or more are measured",
    "lookahead": "mean of 1 - L_j(after a step for i) / L_j (TAG)",
}
CRITERION = "largest mean, over the tasks, of a task's mean affinity to the others of its group; 0 for a task alone"


@dataclass(frozen=True)
class GroupOptions:
    """How `group_tasks` groups.

    Attributes:
        by: Measure of affinity: "cosine" of the task gradients, or "lookahead" (TAG).
        groups: Number of groups, at least 1; None for that with the largest mean affinity within groups.
        every: Steps between two lookaheads, at least 1; None for a twentieth of the run.

    Raises:
        InputError: If a value is not allowed.
    """

    by: str = "cosine"
    groups: int | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        if self.by not in MEASURES:
            raise UnknownNameError("value of `--by`:", self.by, MEASURES)
        for name, value in (("groups", self.groups), ("every", self.every)):
            if value is not None and value < 1:
                raise InputError(f"`--{name}` must be at least 1, got {value}.")


def group_tasks(config: TrainConfig, options: GroupOptions | None = None) -> dict[str, Any]:
    """Measure in one run how much tasks help each other, group them, and write configurations to run.

    Args:
        config: A run with two tasks or more; everything is written below its `output_dir`.
        options: How to group; default by cosine, into the best number of groups.

    Returns:
        What `affinity.json` holds, such as `affinity` (`[tasks, tasks]`, None where unmeasured), `groups` of names,
        `score_by_number_of_groups`, and `configs`, the paths of `group-N.yaml` and `selective.yaml`.

    Raises:
        InputError: If there are fewer tasks than two or than groups, groups are given already, the folder is taken, or
            the run may stop early.
    """
    options = options or GroupOptions()
    output = Path(config.output_dir)
    check_one_process("group")
    refuse_early_stop("group", config)
    if (config.sharing_args or {}).get("groups"):
        raise InputError("`mtl-opt group` finds groups of tasks; `sharing_args.groups` already gives some.")
    check_folder_of_runs(output)
    data = prepare(config)
    tasks = data.only(config.only_tasks).tasks
    if not len(tasks) >= 2 or (options.groups or 1) > len(tasks):
        raise InputError(f"Grouping needs two tasks or more, and at most as many groups; got {len(tasks)} tasks.")
    total = build_sampler(config, data.only(config.only_tasks))[1]
    folder = output / FOLDER
    if options.by == "cosine":
        train_measured(config, data, folder, total)
        affinity = cosine_affinity(read_measurements(folder))
    else:
        settings = {**asdict(config), "output_dir": str(folder), "resume_from_checkpoint": True}
        every = min(options.every or max(1, total // 20), total)
        logger.info("Looking ahead every %d steps: %d forwards each time.", every, len(tasks) + 1)
        train(train_config(settings), data, partial(LookaheadWatch, every=every))
        affinity = lookahead_affinity(folder)
    groups, scores = cluster(affinity, options.groups)
    named = [[tasks[index] for index in group] for group in groups]
    return _write_groups(config, output, tasks, affinity, named, scores, options)


def cluster(affinity: Tensor, number: int | None = None) -> tuple[list[list[int]], dict[int, float]]:
    """Group tasks by average linkage on `largest affinity - affinity`; also score every number of groups.

    Examples:
        >>> import torch
        >>> pairs = torch.tensor([[1.0, 0.9, -0.2], [0.9, 1.0, -0.1], [-0.2, -0.1, 1.0]])
        >>> cluster(pairs)[0]
        [[0, 1], [2]]
    """
    values = ((affinity + affinity.T) / 2).double().numpy().copy()
    size = len(values)
    apart = ~np.eye(size, dtype=bool)
    known = values[apart & np.isfinite(values)]
    lowest, highest = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    values = np.where(np.isfinite(values), values, lowest)  # pairs that never met are kept apart
    distances = np.where(apart, highest - values, 0.0)
    tree = linkage(squareform(distances, checks=False), method="average")
    found: dict[int, list[list[int]]] = {}
    for count in range(1, size + 1):
        labels = cut_tree(tree, n_clusters=count).ravel()
        found[count] = [np.flatnonzero(labels == label).tolist() for label in dict.fromkeys(labels.tolist())]
    scores = {count: _criterion(values, groups) for count, groups in found.items()}
    # Rounded, so that the smaller number of groups wins a tie; more groups cost more models.
    best = max(scores, key=lambda count: (round(scores[count], 12), -count)) if number is None else number
    return found[best], scores


def _criterion(values: np.ndarray, groups: list[list[int]]) -> float:
    """Compute `CRITERION` of one grouping."""
    means = [
        float(np.mean([values[task, other] for other in group if other != task])) if len(group) > 1 else 0.0
        for group in groups
        for task in group
    ]
    return float(np.mean(means))


def _write_groups(
    config: TrainConfig,
    output: Path,
    tasks: list[str],
    affinity: Tensor,
    groups: list[list[str]],
    scores: dict[int, float],
    options: GroupOptions,
) -> dict[str, Any]:
    """Write `affinity.json` and configurations to run; those of an earlier call go."""
    for stale in output.glob("group-*.yaml"):
        stale.unlink()
    (output / "selective.yaml").unlink(missing_ok=True)
    files = []
    plain = {**asdict(config), "resume_from_checkpoint": False}
    if len(groups) > 1:
        for number, group in enumerate(groups, start=1):
            own = {"only_tasks": group, "output_dir": str(output / f"group-{number}")}
            files.append(f"group-{number}.yaml")
            write_text(output / files[-1], to_yaml(train_config({**plain, **own})))
        if config.finetuning_type == "lora" and not config.use_dora:
            arguments = {"map": {"*": "found"}, "groups": {"found": groups}}
            whole = {"sharing": "selective", "sharing_args": arguments, "output_dir": str(output / "selective")}
            files.append("selective.yaml")
            write_text(output / files[-1], to_yaml(train_config({**plain, **whole})))
    rows = [[None if math.isnan(value) else value for value in row] for row in affinity.tolist()]
    result = {
        "tasks": tasks,
        "by": options.by,
        "measure": MEASURES[options.by],
        "affinity": rows,
        "groups": groups,
        "criterion": CRITERION,
        "score_by_number_of_groups": {str(count): score for count, score in scores.items()},
        "configs": [str(output / file) for file in files],
    }
    write_json(output / "affinity.json", result)
    return result
