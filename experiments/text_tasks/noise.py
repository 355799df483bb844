"""Cosines of task gradients at fixed parameters: as single batches show them, and without their sampling noise."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_opt.gradients import TaskGradients
from mtl_opt.models import private_parameters, task_losses
from mtl_opt.training.config.run_config import train_config
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.state import Run
from mtl_opt.training.run.step import training_step
from mtl_opt.training.setup.data import prepare


def cosines(settings: dict[str, Any], folder: Path, steps: int, batches: int) -> dict[str, Any]:
    """Train for some steps, then look at the task gradients of many batches while nothing moves."""
    config = train_config({**settings, "output_dir": str(folder)})
    run = build_run(config, prepare(config))
    run.parts.model.train()
    for step in range(1, steps + 1):
        training_step(run.parts, run.next_batches(), step)
    gramians, estimate = watch(run, batches)
    length = gramians.diagonal(dim1=1, dim2=2).sqrt()
    raw = gramians / (length[:, :, None] * length[:, None, :])  # [batches, tasks, tasks]
    corrected, half = jackknife(estimate.blocks)
    pairs = {}
    tasks = run.prepared.tasks
    for i, first in enumerate(tasks):
        for j, second in enumerate(tasks[:i]):
            pairs[f"{second}, {first}"] = {
                "raw": float(raw[:, i, j].mean()),
                "conflict": float((raw[:, i, j] < 0).float().mean()),
                "corrected": float(corrected[i, j]),
                "interval": float(half[i, j]),
            }
    noise = dict(zip(tasks, estimate.signal_to_noise.tolist(), strict=True))
    return {"steps_before": steps, "batches": batches, "pairs": pairs, "signal_to_noise": noise}


def watch(run: Run, batches: int) -> tuple[Tensor, Any]:  # [batches, tasks, tasks]
    """Compute task gradients batch after batch without a step."""
    model, tasks = run.parts.model, run.prepared.tasks
    grads = TaskGradients(model, tasks, "one_pass", private=private_parameters(model), window=batches)
    found = []
    for _ in range(batches):
        for batch in run.next_batches():
            with grads.rows(batch.task_ids):
                grads.backward(*task_losses(model, batch, len(tasks)))
        found.append(grads.gramian().cpu())
        grads.write(torch.zeros(len(tasks)))  # closes the step for the window; no optimizer follows
        grads.zero()
    assert grads.window is not None
    return torch.stack(found), grads.window.estimate()


def jackknife(blocks: Tensor) -> tuple[Tensor, Tensor]:  # [blocks, tasks, tasks] -> [tasks, tasks] twice
    """Turn the blocks' estimates into cosines with intervals."""
    number = len(blocks)
    left_out = torch.stack([cosine(blocks[torch.arange(number) != i].mean(0)) for i in range(number)])
    spread = ((left_out - left_out.mean(0)).square().sum(0) * (number - 1) / number).sqrt()
    return cosine(blocks.mean(0)), 1.96 * spread


def cosine(gramian: Tensor) -> Tensor:  # [tasks, tasks] -> [tasks, tasks]
    """Normalise a Gramian; NaN where a diagonal entry is not positive."""
    length = gramian.diagonal().sqrt()
    return gramian / (length[:, None] * length[None, :])
