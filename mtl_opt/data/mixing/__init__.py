"""How tasks share the rows of a step: one class per mixing, rounding to whole rows, row orders, and the sampler."""

import inspect
from collections.abc import Mapping
from typing import Any

from mtl_opt.data.mixing.adaptive import Bandit, LearningSpeedMixing, LossSoftmax
from mtl_opt.data.mixing.base import Facts, Mixer
from mtl_opt.data.mixing.fixed import Balanced, Equal, Inverse, Proportional, Ratios, Sqrt, Temperature, UniMax
from mtl_opt.data.mixing.paced_rows import PacedRows, RowPacing, split_row_pacing
from mtl_opt.data.mixing.row_order import RowOrder
from mtl_opt.data.mixing.sampler import Sampler, rank_slice
from mtl_opt.data.mixing.schedules import Curriculum, Homogeneous, RatioSchedule, Rotation
from mtl_opt.errors import InputError, UnknownNameError

__all__ = [
    "EXHAUSTION",
    "MIXINGS",
    "Facts",
    "Mixer",
    "PacedRows",
    "RowOrder",
    "RowPacing",
    "Sampler",
    "build_mixer",
    "rank_slice",
    "split_row_pacing",
]

MIXINGS: dict[str, type[Mixer]] = {
    "balanced": Balanced,
    "equal": Equal,
    "proportional": Proportional,
    "sqrt": Sqrt,
    "temperature": Temperature,
    "inverse": Inverse,
    "unimax": UniMax,
    "ratios": Ratios,
    "homogeneous": Homogeneous,
    "rotation": Rotation,
    "curriculum": Curriculum,
    "ratio_schedule": RatioSchedule,
    "learning_speed": LearningSpeedMixing,
    "loss_softmax": LossSoftmax,
    "bandit": Bandit,
}
"""Registry of mixings by their name in the configuration."""

EXHAUSTION = ("repeat", "stop_first", "stop_all", "once")
"""What happens when the rows of a task are used up: start over; end the run with the first such task, or once all tasks
are used up; leave the task out from then on."""


def build_mixer(name: str, facts: Facts, arguments: Mapping[str, Any]) -> Mixer:
    """Build a mixing.

    Args:
        name: A key of `MIXINGS`.
        facts: Facts of the data and the run.
        arguments: Keyword arguments of the mixing (`mixing_args`).

    Returns:
        The mixing, before its first step.

    Raises:
        InputError: If the mixing or an argument is unknown, or a value is not allowed.
    """
    if name not in MIXINGS:
        raise UnknownNameError("mixing", name, MIXINGS)
    accepted = [key for key in inspect.signature(MIXINGS[name]).parameters if key != "facts"]
    for key in arguments:
        if key not in accepted:
            raise InputError(
                f"`mixing_args`: `{name}` has no argument `{key}`. Allowed: {', '.join(accepted) or 'none'}."
            )
    return MIXINGS[name](facts, **arguments)  # type: ignore[call-arg]  # every class takes the facts
