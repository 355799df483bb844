"""The keys of a comparison; every other key of its YAML is one of `TrainConfig` and holds for all runs."""

import re
from dataclasses import dataclass
from typing import Any

from mtl_opt.checks import Check, choice, either, flag, mapping, names, number, setting, whole, whole_numbers
from mtl_opt.data import MIXINGS
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.models import SHARING
from mtl_opt.training.config.keys import LARGEST_RATE, LARGEST_SEED

ONE_RUN_KEYS = ("combiner", "seed", "resume_from_checkpoint", "only_tasks", "val_from_train", "monitor_only")
"""Keys of `TrainConfig` that a comparison sets itself, run by run."""

UNITS = {"": 0, "step": 0, "steps": 0, "s": 1, "sec": 1, "second": 1, "seconds": 1, "min": 60, "minute": 60,
         "minutes": 60, "h": 3600, "hour": 3600, "hours": 3600}  # fmt: skip
"""Seconds that a unit of `budget` has; 0 for steps."""


def known_names(allowed: Any) -> Check:
    """Build a check for a list of distinct names out of those allowed."""

    def check(key: str, value: Any) -> list[str]:
        found = names(key, value)
        for name in found:
            if name not in allowed:
                raise UnknownNameError(f"name in `{key}`:", name, allowed)
        return found

    return check


def rates(key: str, value: Any) -> list[float]:
    """Check one learning rate or a list of distinct ones; return them sorted."""
    entries = value if isinstance(value, list | tuple) else [value]
    found = [number(0, LARGEST_RATE, above=True)(key, entry) for entry in entries]
    if not found or len(set(found)) != len(found):
        raise InputError(f"`{key}` must be different positive numbers, got {value!r}.")
    return sorted(found)


def budget(key: str, value: Any) -> str:
    """Check a number of steps or a time; return it as `N steps` or `S seconds`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value))
    if not match or match[2] not in UNITS or float(match[1]) <= 0:
        raise InputError(f"`{key}` must be a number of steps (200) or a time (90s, 5 min), got {value!r}.")
    seconds = UNITS[match[2]] * float(match[1])
    if seconds:
        return f"{seconds:g} seconds"
    return f"{whole(1)(key, match[1])} steps"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """The settings of a comparison."""

    combiners: list[str] = setting(
        names, "methods to compare", ["sum", "weighted", "uncertainty", "gradnorm", "pcgrad"]
    )
    combiner_args: dict[str, Any] = setting(mapping, "combiner: {its arguments}", {})
    sharings: list[str] | None = setting(
        known_names(SHARING), "ways of sharing to compare; sharing_args is then sharing: {its arguments}"
    )
    mixings: list[str] | None = setting(
        known_names(MIXINGS), "ways of mixing to compare; mixing_args is then mixing: {its arguments}"
    )
    norm_matched: bool | str = setting(
        either(flag, choice("both")), "rescale every update to the norm of the mean gradient; both: compare", False
    )
    learning_rates: list[float] | None = setting(
        rates, "rates of which every method gets its best, chosen on rows held out of the training rows"
    )
    search_seeds: list[int] | None = setting(
        whole_numbers(0, LARGEST_SEED), "seeds of that choice; default the first of seeds"
    )
    search_val_size: float = setting(number(0, above=True), "training rows held out for that choice, as val_size", 0.1)
    select_by: str = setting(choice("metric", "loss"), "what the choice looks at: main metrics or losses", "metric")
    seeds: list[int] = setting(
        whole_numbers(0, LARGEST_SEED), "seeds; every method sees the same data order per seed", [0, 1]
    )
    baselines: bool = setting(flag, "train every task alone too", True)
    budget: str | None = setting(
        budget, "the same for every run, instead of max_steps: steps (200) or seconds of training steps (90s, 5 min)"
    )
    jobs: int = setting(whole(1), "runs at the same time, each in a process of its own", 1)
