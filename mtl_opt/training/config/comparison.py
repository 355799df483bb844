"""The configuration of a comparison: what is compared, and the settings that all runs share."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mtl_opt.checks import mapping
from mtl_opt.combiners import COMBINERS
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.training.config.comparison_keys import ONE_RUN_KEYS, CompareConfig
from mtl_opt.training.config.run_config import (
    TrainConfig,
    check_known,
    checked_values,
    train_config,
    translated_settings,
)

logger = logging.getLogger(__name__)

SEVERAL = {"combiner": "combiners", "seed": "seeds"}
"""Keys of one run, and those that a comparison reads in their place."""

VARIED = {"sharings": ("sharing", "sharing_args"), "mixings": ("mixing", "mixing_args")}
"""Keys with several values, the key of one run that each varies, and the key of its arguments."""


def is_comparison(settings: Mapping[str, Any]) -> bool:
    """Return whether settings have a key, or a value of `norm_matched`, that only a comparison has."""
    own = {f.name for f in fields(CompareConfig)} - {f.name for f in fields(TrainConfig)}
    return not own.isdisjoint(settings) or settings.get("norm_matched") == "both"


def compare_config(settings: Mapping[str, Any]) -> tuple[CompareConfig, dict[str, Any]]:
    """Check the settings of a comparison.

    Args:
        settings: Raw settings.

    Returns:
        What is compared, and the raw settings that every run shares.

    Raises:
        InputError: If a key is unknown, missing or has a value that is not allowed.
        UnknownNameError: If there is no such combiner.
    """
    settings = _without_single_values(settings)
    mine = {f.name for f in fields(CompareConfig)}
    for key in ONE_RUN_KEYS:
        if key in settings:
            raise InputError(f"`{key}` belongs to `mtl-opt train`; `mtl-opt compare` reads `combiners` and `seeds`.")
    config = CompareConfig(**checked_values(CompareConfig, {k: v for k, v in settings.items() if k in mine}))
    for name in config.combiners:
        if name not in COMBINERS:
            raise UnknownNameError("combiner", name, COMBINERS)
    for name, arguments in config.combiner_args.items():
        if name not in config.combiners:
            raise UnknownNameError("combiner in `combiner_args`", name, config.combiners)
        mapping(f"combiner_args.{name}", arguments)
    shared = translated_settings({k: v for k, v in settings.items() if k not in mine})
    check_known(shared, "compare", CompareConfig, TrainConfig)
    _check_varied(config, shared)
    train_config({k: v for k, v in shared.items() if k not in _by_name(config)})
    return config, shared


def _without_single_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the `combiner` and `seed` of a single run where lists of them are compared."""
    left = dict(settings)
    for one, several in SEVERAL.items():
        if one in left and several in left:
            logger.info("`%s: %s` is not read: `%s` is compared.", one, left.pop(one), several)
    single, arguments, names = settings.get("combiner"), left.get("combiner_args"), left.get("combiners")
    lists = isinstance(arguments, Mapping) and isinstance(names, list)
    if single is not None and lists and not {*(arguments or ())} <= {*(names or ())}:  # they are those of the one
        left["combiner_args"] = {single: arguments} if single in (names or ()) else {}
    return left


def _by_name(config: CompareConfig) -> set[str]:
    """List the keys whose arguments are given by name because several values are compared."""
    return {arguments for key, (_, arguments) in VARIED.items() if getattr(config, key) is not None}


def _check_varied(config: CompareConfig, shared: Mapping[str, Any]) -> None:
    """Refuse a key beside its list of values, and arguments that belong to no value compared."""
    for key, (one, arguments) in VARIED.items():
        values = getattr(config, key)
        if values is None:
            continue
        if one in shared:
            raise InputError(f"`{one}` and `{key}` are both given; `mtl-opt compare` varies `{one}` over `{key}`.")
        for name, own in mapping(arguments, shared.get(arguments) or {}).items():
            if name not in values:
                raise UnknownNameError(f"name in `{arguments}`, which beside `{key}` is by name:", name, values)
            mapping(f"{arguments}.{name}", own)
