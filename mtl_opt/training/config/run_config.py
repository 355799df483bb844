"""The checked configuration of one run; keys follow LLaMA-Factory and Hugging Face where these have one."""

import logging
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_args

from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.training.config.comparison_keys import CompareConfig
from mtl_opt.training.config.contradictions import check_data, check_model, check_output
from mtl_opt.training.config.heads import check_heads
from mtl_opt.training.config.keys import (
    BatchKeys,
    DataKeys,
    GradientKeys,
    ModelKeys,
    OptimizationKeys,
    OutputKeys,
)
from mtl_opt.training.config.starting_adapter import with_shape_of_adapter
from mtl_opt.training.config.translation import translate
from mtl_opt.training.config.yaml_file import dump_yaml

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OutputKeys, OptimizationKeys, GradientKeys, BatchKeys, DataKeys, ModelKeys):
    """Every setting of one training run."""


def train_config(settings: Mapping[str, Any]) -> TrainConfig:
    """Check the settings of one run.

    Args:
        settings: Raw settings.

    Returns:
        The configuration.

    Raises:
        InputError: If a key is unknown, missing or has a value that is not allowed.
    """
    mine = {f.name for f in fields(TrainConfig)}
    settings = translated_settings(settings)
    for key in settings:
        if key not in mine and key in {f.name for f in fields(CompareConfig)}:
            raise InputError(f"`{key}` belongs to `mtl-opt compare`; `mtl-opt train` runs one combiner: `combiner`.")
    config = TrainConfig(**checked_values(TrainConfig, with_shape_of_adapter(settings)))
    _check_data(config)
    return config


def to_yaml(config: TrainConfig) -> str:
    """Serialise a configuration as YAML."""
    return dump_yaml(asdict(config))


def translated_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate keys of other tools and log every change; already translated settings pass unchanged."""
    compare = {f.name for f in fields(CompareConfig)}
    found, notes = translate(settings, {f.name for f in fields(TrainConfig)} | compare)
    for note in notes:
        logger.info(note)
    return found


def check_known(settings: Mapping[str, Any], verb: str, *classes: type) -> None:
    """Refuse a key that is a field of none of the classes."""
    known = {spec.name for cls in classes for spec in fields(cls)}
    for key in settings:
        if key not in known:
            raise UnknownNameError("key", key, known, f"`mtl-opt {verb} --help` and `docs/llamafactory.md`")


def checked_values(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check every value against its field, and fill in the defaults."""
    check_known(settings, "train", cls)
    known = {f.name: f for f in fields(cls)}
    result = {}
    for name, spec in known.items():
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        value = settings.get(name, default)
        may_be_none = default is None or type(None) in get_args(spec.type)
        result[name] = value if value is None and may_be_none else spec.metadata["check"](name, value)
    return result


def _check_data(config: TrainConfig) -> None:
    """Check that required keys are there and that keys do not contradict each other."""
    for key in ("model_name_or_path", "output_dir"):
        if getattr(config, key) is None:
            raise InputError(f"`{key}` is missing from the configuration.")
    check_data(config)
    check_model(config)
    check_output(config)
    check_heads(config)
    if config.max_steps == 0:
        raise InputError("`max_steps` must be at least 1, or -1 to count by `num_train_epochs`, got 0.")
