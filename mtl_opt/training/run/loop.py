"""One training run: from a configuration to an adapter, logs and results in `output_dir`."""

import logging
import math
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mtl_opt.batch import TaskBatch
from mtl_opt.errors import DivergedError, InputError
from mtl_opt.linalg import conflict_rate
from mtl_opt.monitor import StepEvent
from mtl_opt.results import (
    ALL_RESULTS_JSON,
    CONFIG_YAML,
    check_folder,
    checkpoints,
    holds_run,
    read_results,
    write_json,
    write_text,
)
from mtl_opt.training.config.run_config import TrainConfig, train_config
from mtl_opt.training.config.yaml_file import dump_yaml, read_yaml
from mtl_opt.training.details import details
from mtl_opt.training.preview.plan import plan_of
from mtl_opt.training.preview.pull import log_pull
from mtl_opt.training.processes import (
    any_process,
    bar_disabled,
    gather,
    is_main,
    joined_processes,
    wait_for_all,
    world_size,
)
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.checkpoint import (
    best_name,
    check_same_run,
    load_best,
    read_state,
    refuse_non_finite,
    restore_run,
    save_checkpoint,
    save_model,
)
from mtl_opt.training.run.measurement import Measured, measure, write_predictions
from mtl_opt.training.run.observer import Observer
from mtl_opt.training.run.process import finish_step_on_interrupt, peak_mb, reset_peak
from mtl_opt.training.run.state import Run
from mtl_opt.training.run.step import Watch, training_step
from mtl_opt.training.run.writers import NoWriters, Writers, draw_losses, epoch_of
from mtl_opt.training.setup.data import Prepared, prepare
from mtl_opt.training.setup.model import parameter_counts

logger = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """Raised when Ctrl-C has stopped a run, after its checkpoint was written."""


def train(
    config: TrainConfig, data: Prepared | None = None, watch: Callable[[Run], Watch] | None = None
) -> dict[str, Any]:
    """Train, evaluate before and after, and write adapter, logs and results into `output_dir`.

    Args:
        config: The configuration, from `train_config`.
        data: Data prepared earlier, shared by several runs; default: read from the configured files.
        watch: Called with the run before its first step; returns the watcher of its steps.

    Returns:
        The content of `all_results.json`.

    Raises `InputError` for settings that do not fit data or model, `DivergedError` for a loss that is not finite, and
    `Interrupted` when Ctrl-C stopped the run, after a checkpoint was written.
    """
    output = Path(config.output_dir)
    settings = asdict(config)
    checkpoint = _where_to_start(output, config.resume_from_checkpoint, settings)
    finished = read_results(output)
    if finished is not None:
        _check_same_settings(output, settings)
        details.info("`%s` holds a finished run: nothing to do.", output)
        return finished
    with joined_processes(config.ddp_timeout) as device:
        prepared = (data or prepare(config)).only(config.only_tasks)
        reset_peak()
        begin = time.perf_counter()
        run = build_run(config, prepared, checkpoint, device)
        run.begin = begin
        planned = plan_of(config, prepared, run.parts.model, run.parts.grads)
        details.info("%s.", planned.sentence())
        log_pull(config, prepared, run.parts.combiner, run.total_steps)
        wait_for_all()  # all have looked at the folder before anything is written into it
        if checkpoint is not None:
            restore_run(run, checkpoint)
            run.known_seconds = run.totals.seconds + run.totals.evaluating
            logger.info("Going on after step %d of %d.", run.step, run.total_steps)
        elif is_main():
            _begin(output, settings)
        if watch is not None:
            run.parts = replace(run.parts, watch=watch(run))
        return _run_to_end(run)


def _run_to_end(run: Run) -> dict[str, Any]:
    """Measure, take all steps that are left, and finish; only the main process writes."""
    writers = Writers(run) if is_main() else NoWriters()
    try:
        _measure_untrained(run, writers)
        return _finish(run, writers, take_steps(run, writers))
    finally:
        writers.close()
        run.loader.close()


def _where_to_start(output: Path, wish: bool | str | None, settings: dict[str, Any]) -> Path | None:
    """Find the checkpoint to resume from; refuse a folder that holds another run."""
    check_folder(output)
    if wish is None or wish is False:
        if holds_run(output):
            raise InputError(
                f"`output_dir`: `{output}` already holds a run; choose another folder, or go on with "
                "`resume_from_checkpoint: true`."
            )
        return None
    if wish is not True:
        folder = Path(str(wish))
        read_state(folder)
        if holds_run(output) and folder.resolve().parent != output.resolve():
            raise InputError(f"`output_dir`: `{output}` already holds a run that `{folder}` is no checkpoint of.")
        return folder
    found = checkpoints(output)
    if found:
        check_same_run(settings, read_state(found[-1]), found[-1])
        return found[-1]
    if holds_run(output) and not (output / CONFIG_YAML).exists():
        raise InputError(f"`output_dir`: `{output}` holds something else than a run; choose another folder.")
    if read_results(output) is None and holds_run(output):
        details.info("`%s` holds no checkpoint: starting from the first step.", output)
    return None


def _check_same_settings(output: Path, settings: dict[str, Any]) -> None:
    """Refuse to return the results of a finished run for other settings."""
    path = output / CONFIG_YAML
    if path.exists():
        check_same_run(settings, {"config": asdict(train_config(read_yaml(path, [])))}, path)


def _begin(output: Path, settings: dict[str, Any]) -> None:
    """Clear the logs of a run killed before its first checkpoint, and write the configuration."""
    shutil.rmtree(output / "runs", ignore_errors=True)
    write_text(output / CONFIG_YAML, dump_yaml(settings))


def _measure_untrained(run: Run, writers: Writers | NoWriters) -> None:
    """Evaluate the model before training; once for all runs on the same data and model."""
    known = {} if run.prepared.heads else run.prepared.untrained  # heads begin otherwise with every seed
    if run.step > 0:
        return  # the checkpoint brought it
    missing = [task for task in run.prepared.tasks if task not in known]
    for task in missing:
        known[task] = _evaluate(run, run.prepared.only([task])).metrics
    run.before = {key: value for task in run.prepared.tasks for key, value in known[task].items()}
    writers.evaluation(run.before)


def take_steps(run: Run, writers: Writers | NoWriters) -> list[float]:
    """Take all steps that are left; return the seconds of each."""
    keys, times = run.output, list[float]()
    observer = Observer(run)
    run.parts.model.train()
    bar = tqdm(total=run.total_steps, initial=run.step, desc="training", leave=False, disable=bar_disabled())
    with finish_step_on_interrupt() as interrupt, bar:
        while not run.is_over():
            begin = time.perf_counter()
            batches = run.next_batches()
            observer.before_step()
            event = _step(run, batches)
            if not event.skipped:
                observer.after_step(batches, event.step)
                run.loader.observe(_present_losses(event, run), run.step)
            times.append(time.perf_counter() - begin)
            run.step = event.step
            _add_to_totals(run, event, times[-1])
            writers.step(event)
            bar.update()
            last = run.step == run.total_steps
            improved = not last and _is_due(run, keys.eval_steps) and _evaluate_step(run, writers)
            stop = any_process(interrupt.requested, run.device) and not last
            if _is_due(run, keys.save_steps) or stop or (improved and best_name(run) is not None):
                folder = save_checkpoint(run)
                if stop:
                    raise Interrupted(f"Stopped after step {run.step} of {run.total_steps}; `{folder}` was written.")
    return times


def _evaluate_step(run: Run, writers: Writers | NoWriters) -> bool:
    """Measure the model after a step, once; return whether that is the best evaluation so far."""
    if run.measured is not None and run.measured[0] == run.step:
        return False
    measured = _evaluate(run, run.prepared)
    measured = replace(measured, metrics=gather(measured.metrics)[0])  # all processes must judge alike
    run.measured = (run.step, measured)
    if run.best.seen != run.step:  # else the checkpoint gone on from is of this evaluation
        writers.evaluation(measured.metrics)
    return run.selection is not None and run.best.add(run.selection, measured.metrics, run.step)


def _is_due(run: Run, every: float | None) -> bool:
    """Return whether something that happens every so many steps, or shares of all steps, is due now."""
    if not every:
        return False
    return run.step % (every if every >= 1 else max(1, round(every * run.total_steps))) == 0


def _present_losses(event: StepEvent, run: Run) -> dict[str, float]:
    """Map the tasks present in a step to their losses."""
    pairs = zip(run.prepared.tasks, event.losses.tolist(), event.counts.tolist(), strict=True)
    return {task: loss for task, loss, count in pairs if count > 0}


def _step(run: Run, batches: list[TaskBatch]) -> StepEvent:
    """Take one step; turn what engine or combiner refuse into an `InputError`."""
    try:
        return training_step(run.parts, batches, run.step + 1)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"Step {run.step + 1} was not taken: {error}") from error


def _add_to_totals(run: Run, event: StepEvent, seconds: float) -> None:
    """Add a step to the totals of the run."""
    totals = run.totals
    rate = float(conflict_rate(event.gramian))
    if math.isfinite(rate):
        totals.conflicts += rate
        totals.measured += 1
    totals.seconds += seconds
    if event.scales is not None:
        own = event.scales.tolist()
        totals.pull = [a + b for a, b in zip(totals.pull or [0.0] * len(own), own, strict=True)]
    if event.skipped:
        totals.skipped += 1
    else:
        settings = run.prepared.settings
        main = event.losses[[i for i, task in enumerate(run.prepared.tasks) if settings[task].role == "main"]]
        totals.loss += float((main if bool(main.isfinite().any()) else event.losses).nanmean())


def _finish(run: Run, writers: Writers | NoWriters, times: list[float]) -> dict[str, Any]:
    """Evaluate, save the adapter, and write the results last: their file marks a finished run."""
    refuse_non_finite(run)
    if run.step < run.total_steps:
        writers.stop()
        _log_stop(run)
    _evaluate_step(run, writers)
    measured = _measured_result(run)
    after = measured.metrics
    for key, value in after.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"`{key}` is not finite ({value}) after step {run.step}. A lower `learning_rate` may help."
            )
    output = Path(run.output.output_dir)
    save_model(run, output)
    results = _results(run, after, times)
    if is_main():
        write_predictions(output, measured.predictions)
        draw_losses(run)
        write_json(output / ALL_RESULTS_JSON, results)
    return results


def _results(run: Run, after: dict[str, float], times: list[float]) -> dict[str, Any]:
    """Collect what `all_results.json` holds."""
    totals = run.totals
    return {
        **after,
        **{f"before_{key}": value if math.isfinite(value) else None for key, value in run.before.items()},
        "best": run.best.results(),
        "stopped_early": run.step < run.total_steps,
        "train_loss": totals.loss / max(1, run.step - totals.skipped),
        "steps_skipped": totals.skipped,
        "train_runtime": totals.seconds,
        "evaluation_runtime": totals.evaluating,
        "overhead_seconds": run.overhead(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "train_steps": run.step,
        "steps_per_second": 1 / statistics.median(times) if times else None,
        "peak_memory_mb": peak_mb(),
        "conflict_rate": totals.conflicts / totals.measured if totals.measured else None,
        "gradient_engine": run.parts.grads.engine.name,
        "rows": run.loader.drawn(),
        "pull": dict(zip(run.prepared.tasks, (part / sum(totals.pull) for part in totals.pull), strict=False)),
        **parameter_counts(run.parts.grads),
        "processes": world_size(),
        "epoch": epoch_of(run),
    }


def _log_stop(run: Run) -> None:
    """Say why the run ends before its last step."""
    best = run.best.run
    logger.info(
        "Stopped after step %d of %d: %d evaluations in a row brought no improvement of `%s`, %s.",
        run.step,
        run.total_steps,
        run.best.waiting,
        run.output.metric_for_best_model,
        "which was never finite" if best is None else f"best at step {best.step} ({best.value:.4g})",
    )


def _measured_result(run: Run) -> Measured:
    """Return the evaluation of what is saved as the result: the last, or the best, whose weights are then loaded."""
    assert run.measured is not None  # the last step was measured
    if best_name(run) is None or run.best.run is None or run.best.run.step == run.step:
        return run.measured[1]
    best = run.best.run
    logger.info(
        "The result is that of step %d, the best by `%s` (%.4g).", best.step, run.output.metric_for_best_model,
        best.value,
    )  # fmt: skip
    load_best(run)
    return _evaluate(run, run.prepared)


def _evaluate(run: Run, prepared: Prepared) -> Measured:
    """Measure the model, and add up the time it takes."""
    begin = time.perf_counter()
    measured = measure(run.parts.model, prepared, run.evaluation)
    run.totals.evaluating += time.perf_counter() - begin
    return measured
