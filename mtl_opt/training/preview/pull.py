"""What a run will deliver: each task's share of the rows, and its pull at the shared parameters."""

import logging
from collections.abc import Mapping

import numpy as np
import torch

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.combiners import Combiner
from mtl_opt.data import Sampler, StreamRows
from mtl_opt.gradients.step.row_scales import RowScales
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.details import details
from mtl_opt.training.setup.data import Prepared
from mtl_opt.training.setup.gradients import task_weights
from mtl_opt.training.setup.sampler import new_sampler

logger = logging.getLogger(__name__)

MOST_DRAWS = 2000
"""Most draws counted for a table of shares; longer runs are extrapolated."""

SAMPLE = 500
"""Most rows of a task whose label tokens are counted, evenly spaced."""


def pulls(
    config: TrainConfig, prepared: Prepared, sampler: Sampler, draws: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Advance a sampler by so many draws; return each task's share of the rows and of the summed row scales."""
    scales = RowScales(prepared.tasks, config.loss_reduction, task_weights(prepared.tasks, prepared.settings))
    tokens = torch.tensor(_label_tokens(config, prepared), dtype=torch.float64)
    rows, pull = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for _ in range(max(1, min(draws, MOST_DRAWS) // sampler.draws_per_step)):
        counts = [list(sampler.skip().values()) for _ in range(sampler.draws_per_step)]
        own = torch.tensor(counts, dtype=torch.float64).sum(0)
        if bool(own.any()):
            rows, pull = rows + own, pull + scales.of_step(own * tokens, own)
    shares = [dict(zip(prepared.tasks, (found / found.sum()).tolist(), strict=True)) for found in (rows, pull)]
    return shares[0], shares[1]


def _label_tokens(config: TrainConfig, prepared: Prepared) -> list[float]:  # -> [tasks]
    """Count the mean label tokens of the rows of each task; 1 where they do not decide anything, or are unknown."""
    if config.loss_reduction != "tokens":
        return [1.0] * len(prepared.tasks)
    found = []
    for task in prepared.tasks:
        rows = prepared.train[task]
        if isinstance(rows, StreamRows):
            found.append(1.0)
            continue
        sample = np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int)
        counts = [sum(label != IGNORE_INDEX for label in rows[int(i)].labels[1:]) for i in sample]
        found.append(max(1.0, float(np.mean(counts))))
    return found


def log_pull(config: TrainConfig, prepared: Prepared, combiner: Combiner, steps: int) -> None:
    """Log the share of the rows and the pull of every task, and that a combiner does not heed the pull."""
    if len(prepared.tasks) < 2:
        return
    draws = steps * config.gradient_accumulation_steps
    shares, pull = pulls(config, prepared, new_sampler(config, prepared, steps), draws)
    found = ", ".join(f"{task} {shares[task]:.1%} / {pull[task]:.1%}" for task in prepared.tasks)
    say = details if _equal(shares) and _equal(pull) else logger  # what all runs of a comparison share is said once
    say.info("Share of the rows / pull (loss_reduction: %s): %s.", config.loss_reduction, found)
    if combiner.scale_invariant and not _equal(pull):
        logger.info(
            "`%s` looks at the directions of the task gradients only: weights and ratios make a task's gradient less "
            "noisy, and do not move the update towards it.",
            config.combiner,
        )


def _equal(values: Mapping[str, float]) -> bool:
    """Return whether all values agree."""
    return max(values.values()) - min(values.values()) < 1e-9
