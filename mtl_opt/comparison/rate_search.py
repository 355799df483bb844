"""The learning rate of every method, chosen on rows held out of the training rows, with the same budget for all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import isfinite
from statistics import fmean
from typing import Any

from mtl_opt.comparison.grid import GridRun, Method, run_config
from mtl_opt.training.config.comparison_keys import CompareConfig
from mtl_opt.training.config.task_metrics import worth


def search_runs(
    config: CompareConfig, methods: Sequence[Method], shared: Mapping[str, Any], steps: Mapping[str, int]
) -> Iterator[GridRun]:
    """List the runs that search for the learning rate of every method; none where no choice is left."""
    if config.learning_rates is None or len(config.learning_rates) < 2:
        return
    unseen = {**shared, "val_from_train": config.search_val_size}
    if not shared.get("load_best_model_at_end") and shared.get("early_stopping_patience") is None:
        unseen["eval_steps"] = None
    seeds = config.search_seeds or config.seeds[:1]
    for method, seed, rate in product(methods, seeds, config.learning_rates):
        name = f"search-{method.name}-lr{rate:g}-seed{seed}"
        yield GridRun(name, "search", method, run_config(name, method, seed, unseen, rate, steps.get(method.name)))


def search_score(line: Mapping[str, Any], select_by: str) -> float | None:
    """Average the metrics of a search run's main tasks, higher is better; None where one is not finite."""
    values = []
    helping = line.get("auxiliary") or []
    for task in [task for task in line["tasks"] if task not in helping] or line["tasks"]:
        metric = "loss" if select_by == "loss" else line["main_metric"][task]
        value = line["metrics"].get(f"eval_{task}_{metric}")
        if value is None or not isfinite(value):
            return None
        values.append(worth(metric, value))
    return fmean(values)


def choose_rates(lines: Iterable[Mapping[str, Any]], names: Mapping[tuple[str, str | None], str]) -> dict[str, float]:
    """Choose the best learning rate of every method; of equally good ones the smallest."""
    found: dict[str, dict[float, list[Mapping[str, Any]]]] = {}
    for line in lines:
        by_rate = found.setdefault(names[line["method"], line["task"]], {})
        by_rate.setdefault(line["learning_rate"], []).append(line)
    return {name: max(by_rate, key=lambda rate: (*_worth(by_rate[rate]), -rate)) for name, by_rate in found.items()}


def _worth(lines: Sequence[Mapping[str, Any]]) -> tuple[bool, float, float]:
    """Rank a rate: whether all its runs are finite, their mean score, and minus their mean loss."""
    scores = [line["search_score"] for line in lines]
    losses = [line["metrics"].get(f"eval_{task}_loss") for line in lines for task in line["tasks"]]
    if any(value is None for value in (*scores, *losses)):
        return False, 0.0, 0.0
    return True, fmean(scores), -fmean(losses)
