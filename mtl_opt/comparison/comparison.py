"""A comparison from its configuration to `results.jsonl`: budget, search for learning rates, then the final runs."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from mtl_opt.comparison.budget import steps_of
from mtl_opt.comparison.grid import GridRun, final_run, methods_of
from mtl_opt.comparison.one_run import DataCache, busy_seconds, seconds_before, without_penalties
from mtl_opt.comparison.provenance import provenance
from mtl_opt.comparison.rate_search import choose_rates, search_runs
from mtl_opt.comparison.result_writer import ResultWriter, headline
from mtl_opt.comparison.settings_check import own_keys
from mtl_opt.comparison.workers import Reply, Workers, run_here
from mtl_opt.errors import InputError
from mtl_opt.results import GRID_JSON, ResultLine, check_folder_of_runs, write_json
from mtl_opt.training.config.comparison_keys import CompareConfig
from mtl_opt.training.config.run_config import TrainConfig, train_config
from mtl_opt.training.details import details_once
from mtl_opt.training.preview.plan import meta_model
from mtl_opt.training.processes import check_one_process
from mtl_opt.training.setup.combiner import build_combiner
from mtl_opt.training.setup.private_options import has_private_options
from mtl_opt.training.setup.selection import OVER_TASKS, selection_of

logger = logging.getLogger(__name__)

TrainAll = Callable[[Sequence[GridRun]], Iterable[tuple[GridRun, Reply]]]
"""Trains runs and yields each with its reply as it finishes."""


def compare(config: CompareConfig, shared: Mapping[str, Any]) -> list[ResultLine]:
    """Train every method on every seed, and every task alone; runs that have a result are skipped.

    Methods see the same data order and start from the same weights per seed.

    Args:
        config: What is compared, from `compare_config`.
        shared: Raw settings that every run shares, from `compare_config`.

    Returns:
        The lines of `results.jsonl` of all runs of this comparison, in order: methods and baselines seed by seed, then
        the runs that searched for learning rates.

    An `InputError` says that the output folder holds a comparison with other settings, or that several processes run
    this.
    """
    check_one_process("compare")
    return _Phases(config, shared).run()


class _Phases:
    """The phases of a comparison, with what they share: data, methods, and the lines written so far."""

    def __init__(self, config: CompareConfig, shared: Mapping[str, Any]) -> None:
        self.config, self.shared, self.cache = config, shared, DataCache()
        self.begin = time.perf_counter()
        self.before: dict[str, float] = {}
        self.output = Path(shared["output_dir"])
        check_folder_of_runs(self.output)
        varied = {"sharing_args"} if config.sharings else set()
        varied |= {"mixing_args"} if config.mixings else set()
        base = train_config({key: value for key, value in shared.items() if key not in varied})
        warn_of_norm_matching(config, base)
        self.data = self.cache.of(base)
        self.methods = methods_of(config, shared, self.data.tasks)
        self.lines = ResultWriter(self.output, self.data, provenance(self.data))

    def run(self) -> list[ResultLine]:
        """Search, train, and return the lines."""
        self._check()
        steps = steps_of(self.config.budget, self.methods, self.config.seeds[0], self.shared, self.cache)
        searches = list(search_runs(self.config, self.methods, self.shared, steps))
        # Before a search has chosen the rates, the final runs are planned without.
        planned = self._finals({} if searches else self._rates([]), steps)
        own = own_keys(self.config)
        self.lines.refuse_other_settings(searches or planned, own)
        runs = [*searches, *planned]
        todo = self._todo(runs)
        if len(todo) < len(runs):
            logger.info("%d of %d runs have their result already.", len(runs) - len(todo), len(runs))
        self._write_grid([run.name for run in runs])
        progress = tqdm(total=len(todo), desc="comparing", disable=None)
        with progress as bar, logging_redirect_tqdm(), self._place() as train_all:
            self._train(searches, train_all, bar)
            finals = self._finals(self._rates(searches), steps)
            self.lines.refuse_other_settings(finals, own)
            self._train(finals, train_all, bar)
        if todo:
            self._write_grid([run.name for run in [*searches, *finals]], todo)
        return [self.lines.known[run.name] for run in [*finals, *searches]]

    def _todo(self, runs: Sequence[GridRun]) -> list[GridRun]:
        """List the runs that have no result yet."""
        return [run for run in runs if run.name not in self.lines.known]

    def _finals(self, rates: Mapping[str, float], steps: Mapping[str, int]) -> list[GridRun]:
        """List the runs of the tables, seed by seed: an interrupted comparison has complete seeds."""
        return [
            final_run(method, seed, self.shared, rates.get(method.name), steps.get(method.name))
            for seed in self.config.seeds
            for method in self.methods
        ]

    def _check(self) -> None:
        """Build every combiner and data split once: a bad argument of the last method must not show after hours."""
        seen = set()
        for run in self._finals({}, {}):
            own = self.data.only(run.config.only_tasks)
            own = own if len(own.tasks) > 1 else without_penalties(own)
            shape = f"{run.config.sharing} {run.config.sharing_args} {own.tasks}"
            if has_private_options(own.settings) and shape not in seen:
                seen.add(shape)
                meta_model(run.config, own)  # refuses what would change nothing
            build_combiner(run.config, own.tasks, self.data.settings)
            if run.method.task and run.config.metric_for_best_model not in OVER_TASKS:
                selection_of(run.config, self.data)  # one that is unknown is another error
                raise InputError(
                    f"`metric_for_best_model: {run.config.metric_for_best_model}` is of one task, and baselines train "
                    f"others alone; give one of {', '.join(OVER_TASKS)}, or `baselines: false`."
                )
            selection_of(run.config, own)
        for run in list(search_runs(self.config, self.methods, self.shared, {}))[:1]:
            self.cache.of(run.config)

    def _rates(self, searches: Sequence[GridRun]) -> dict[str, float]:
        """Choose the learning rate of every method."""
        if not searches:
            rates = self.config.learning_rates
            return {method.name: rates[0] for method in self.methods} if rates else {}
        names = {(method.label, method.task): method.name for method in self.methods}
        rates_of = choose_rates(self.lines.judge(searches, self.config.select_by), names)
        for name, rate in rates_of.items():
            logger.info("%s: learning rate %g.", name, rate)
        return rates_of

    def _train(self, runs: Sequence[GridRun], train_all: TrainAll, bar: Any) -> None:
        """Train the runs that have no result yet, and write a line for each as it finishes."""
        todo = self._todo(runs)
        self.before |= {run.name: seconds_before(run.config) for run in todo}
        for run, reply in train_all(todo):
            line = self.lines.add(run, reply, self.config.select_by)
            bar.set_postfix_str(run.name)
            bar.update()
            logger.info("%s: %s", run.name, headline(line))

    @contextmanager
    def _place(self) -> Iterator[TrainAll]:
        """Choose where the runs are trained; workers live through all phases."""
        if self.config.jobs == 1:
            with details_once(), _no_loading_bars():
                yield lambda todo: run_here(todo, self.cache)
        else:
            with Workers(self.config.jobs, self.output) as workers:
                yield workers.run

    def _write_grid(self, names: Sequence[str], trained: Sequence[GridRun] = ()) -> None:
        """Write the names of all runs and, at the end, what this call took beside steps and evaluation."""
        grid: dict[str, Any] = {"runs": list(names)}
        path = self.output / GRID_JSON
        if trained:
            wall = time.perf_counter() - self.begin
            lines = [self.lines.known[run.name] for run in trained]
            busy = sum(max(0.0, busy_seconds(line) - self.before.get(line["run"], 0)) for line in lines)
            jobs = min(self.config.jobs, len(trained))
            share = max(0.0, 1 - busy / (wall * jobs))
            grid |= {"jobs": jobs, "wall_seconds": wall, "busy_seconds": busy, "overhead_share": share}
            logger.info("%.0f s in all; %.1f %% of it outside of steps and evaluation.", wall, 100 * share)
        elif path.exists() and all(name in self.lines.known for name in names):
            return
        write_json(path, grid)


def warn_of_norm_matching(config: CompareConfig, base: TrainConfig) -> None:
    """Warn that clipping undoes what `norm_matched` does, and that Adam hardly sees it."""
    if config.norm_matched and base.max_grad_norm > 0:
        logger.warning(
            "`norm_matched`: every update is clipped to `max_grad_norm: %g` afterwards, and Adam-type optimizers are "
            "nearly scale-free, so a method may hardly differ from its matched form; `max_grad_norm: 0` with `optim: "
            "sgd` shows what the step size does.",
            base.max_grad_norm,
        )


@contextmanager
def _no_loading_bars() -> Iterator[None]:
    """Hide the bars with which transformers loads a model, which every run does."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()
