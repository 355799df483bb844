"""Checkpoints of adapter, optimizer, combiner, sampler and RNG: a resumed run equals one without a break."""

import json
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtl_opt.errors import DivergedError, InputError
from mtl_opt.gradients.rows.shards import unsharded
from mtl_opt.results import TRAINER_STATE_JSON, checkpoints, write_json
from mtl_opt.training.processes import gather, is_main, rank, wait_for_all, world_size
from mtl_opt.training.run.adapters import save_adapters, save_trained
from mtl_opt.training.run.best_evaluation import BestEvaluation, bring_best, take_weights
from mtl_opt.training.run.row_losses import rank_rows, waits_for_losses
from mtl_opt.training.run.state import Run, Totals
from mtl_opt.training.sharding import load_optimizer_state, optimizer_state, whole_weights

ROW_LOSSES = "row_losses.pt"

FREE_KEYS = {
    "output_dir", "resume_from_checkpoint", "logging_steps", "eval_steps", "save_steps", "save_total_limit",
    "per_device_eval_batch_size", "max_new_tokens", "plot_loss", "ddp_timeout", "tokenized_path", "overwrite_cache",
    "dataloader_num_workers", "dataloader_prefetch_factor", "layer_conflict",
}  # fmt: skip
"""Keys that may differ on a resume: they do not affect what is learnt."""


def save_checkpoint(run: Run) -> Path:
    """Write `checkpoint-N`, which appears complete or not at all; every process must call it."""
    refuse_non_finite(run)
    output = Path(run.output.output_dir)
    folder = output / f"checkpoint-{run.step}"
    parts = run.parts
    weights = whole_weights(parts.model)  # this and the next two lines need every process
    states = {
        "optimizer.pt": optimizer_state(parts.model, parts.optimizer),
        "rng_state.pth": gather(_random_state()),
        "scheduler.pt": parts.scheduler.state_dict(),
        "combiner.pt": parts.combiner.state_dict(),
        "gradients.pt": parts.grads.state_dict(),
        "monitor.pt": {} if parts.monitor is None else parts.monitor.state_dict(),
    }
    if run.row_losses is not None:
        states[ROW_LOSSES] = run.row_losses
    if is_main():
        _write_checkpoint(run, folder, weights, states)
    wait_for_all()
    return folder


def _write_checkpoint(run: Run, folder: Path, weights: Any, states: dict[str, Any]) -> None:
    """Write a checkpoint into a partial folder, then rename it and drop those beyond the limit."""
    output, partial = folder.parent, folder.with_name(f"{folder.name}.partial")
    for stale in output.glob("checkpoint-*.partial"):
        shutil.rmtree(stale)
    partial.mkdir(parents=True)
    _write_model(run, partial, weights)
    for name, state in states.items():
        torch.save(state, partial / name)
    write_json(partial / TRAINER_STATE_JSON, _state_values(run))
    if folder.exists():
        _remove(folder)
    os.replace(partial, folder)
    for old in _beyond_limit(run, checkpoints(output)):
        _remove(old)


def _beyond_limit(run: Run, found: Sequence[Path]) -> list[Path]:
    """List the checkpoints that `save_total_limit` leaves no room for: the newest one and the best one stay."""
    limit, best = run.output.save_total_limit, best_name(run)
    if limit is None:
        return []
    others = [path for path in found if path.name != best]
    room = limit - (len(found) - len(others))
    room = max(room, int(found[-1].name != best))
    return others[: max(0, len(others) - room)]


def best_name(run: Run) -> str | None:
    """Name the checkpoint that the run keeps because its evaluation is the best; None where it keeps none."""
    if run.selection is None or not run.selection.keeps_best or run.best.run is None:
        return None
    return f"checkpoint-{run.best.run.step}"


def load_best(run: Run) -> None:
    """Go back to the weights of the best evaluation; every process must call it."""
    name = best_name(run)
    assert name is not None  # the caller looked
    take_weights(run.parts.model, run.rebuild(Path(run.output.output_dir) / name))


def _state_values(run: Run) -> dict[str, Any]:
    """Collect the state of a run that is not tensors."""
    return {
        "global_step": run.step,
        "max_steps": run.total_steps,
        "tasks": run.prepared.tasks,
        "sampler": run.loader.state_dict(),
        "totals": asdict(run.totals),
        "before": run.before,
        "best": run.best.to_json(),
        "config": run.settings,
        "processes": world_size(),
    }


def refuse_non_finite(run: Run) -> None:
    """Raise on non-finite weights, so that they reach neither checkpoints nor results."""
    for name, parameter in run.parts.model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(unsharded(parameter)).all()):
            raise DivergedError(
                f"The weights `{name}` are not finite after step {run.step}; nothing was saved of this step. "
                "A lower `learning_rate` may help."
            )


def _remove(folder: Path) -> None:
    """Remove a checkpoint such that an interruption leaves nothing that looks like one."""
    doomed = folder.with_name(f"{folder.name}-old.partial")
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def save_model(run: Run, folder: Path) -> None:
    """Write adapter or model, tokenizer, and an adapter per task; every process must call it."""
    weights = whole_weights(run.parts.model)
    if is_main():
        _write_model(run, folder, weights)
        save_adapters(run.base, run.parts.model, folder)


def _write_model(run: Run, folder: Path, weights: Any) -> None:
    """Write weights and tokenizer in the form that peft and transformers load."""
    save_trained(run.base, run.parts.model, folder, weights)
    run.prepared.tokenizer.save_pretrained(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """Read the non-tensor state of a checkpoint."""
    try:
        state = json.loads((folder / TRAINER_STATE_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"`resume_from_checkpoint`: `{folder}` holds no complete checkpoint ({error}).") from error
    if not isinstance(state, dict) or not {"global_step", "tasks", "sampler", "totals", "before", "config"} <= set(
        state
    ):
        raise InputError(
            f"`resume_from_checkpoint`: `{folder}` is no checkpoint of mtl-opt ({TRAINER_STATE_JSON} is another's)."
        )
    return state


def check_same_run(settings: dict[str, Any], state: dict[str, Any], folder: Path) -> None:
    """Refuse settings that differ from those of the checkpoint, apart from the free keys."""
    # As many rows of each task in a step are the same run, however many processes share them.
    before = {**state["config"]}
    for key in ("rows_per_task", "per_device_train_batch_size"):
        if before.get(key) is not None and "processes" in state:
            rows = before[key] * state["processes"]
            before[key] = rows // world_size() if rows % world_size() == 0 else rows / world_size()
    for key, value in settings.items():
        if key not in FREE_KEYS and key in before and before[key] != value:
            raise InputError(
                f"`{key}` was {before[key]!r} when `{folder}` was written and is {value!r} now: a run goes on only "
                "with the settings it was started with; choose another `output_dir` for new ones."
            )


def restore_run(run: Run, folder: Path) -> None:
    """Restore everything but the weights, from which the run was built, to a checkpoint."""
    state = read_state(folder)
    check_same_run(run.settings, state, folder)
    if state["tasks"] != run.prepared.tasks:
        raise InputError(f"`{folder}` was written for tasks {state['tasks']}, the data has {run.prepared.tasks}.")
    parts = run.parts
    try:
        load_optimizer_state(parts.model, parts.optimizer, _load(folder / "optimizer.pt"))
        parts.scheduler.load_state_dict(_load(folder / "scheduler.pt"))
        parts.combiner.load_state_dict(_load(folder / "combiner.pt"))
        parts.grads.load_state_dict(_load(folder / "gradients.pt"))
        if parts.monitor is not None:
            parts.monitor.load_state_dict(_load(folder / "monitor.pt"))
        random_states = _load(folder / "rng_state.pth")
        if waits_for_losses(run.loader.sampler):
            run.row_losses = _load(folder / ROW_LOSSES)
            rank_rows(run.loader.sampler, run.row_losses)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        reason = str(error).split("\n")[0]
        raise InputError(f"`resume_from_checkpoint`: `{folder}` cannot be read ({reason}).") from error
    run.loader.load_state_dict(state["sampler"])
    run.step = state["global_step"]
    run.totals = Totals(**state["totals"])
    run.before = state["before"]
    if "best" in state:
        run.best = BestEvaluation.from_json(state["best"])
    name = best_name(run)
    if name is not None and is_main():
        bring_best(folder, Path(run.output.output_dir), name)
    wait_for_all()
    if len(random_states) == world_size():  # other processes have no masks to continue with
        _set_random_state(random_states[rank()])


def _load(path: Path) -> Any:
    """Load tensors and plain values, never code."""
    return torch.load(path, map_location="cpu", weights_only=True)


def _random_state() -> dict[str, Any]:
    """Collect the states of all global random generators."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - libraries draw from it
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    """Restore the states of all global random generators."""
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - libraries draw from it
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
