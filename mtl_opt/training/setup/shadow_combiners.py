"""The shadow combiners of a run, whose weights are computed and not applied."""

import logging
from dataclasses import replace

from mtl_opt.combiners import COMBINERS, Combiner
from mtl_opt.errors import InputError
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.setup.combiner import WRAPPERS, build_combiner
from mtl_opt.training.setup.data import Prepared

logger = logging.getLogger(__name__)

CHEAP = {"losses", "gramian"}
"""What a shadow may require: values that every step has anyway."""


def build_shadow_combiners(config: TrainConfig, prepared: Prepared, combiner: Combiner) -> dict[str, Combiner]:
    """Build the shadows of a run by name; a run with one task has none."""
    if config.monitor_only and not _can_shadow(combiner):
        what = f"scope: {config.scope}" if combiner.by else f"combiner: {config.combiner}"
        raise InputError(
            f"`monitor_only: true` watches what a combiner does with the Gramian of a step; `{what}` needs more."
        )
    names = _shadow_names(config, combiner) if len(prepared.tasks) > 1 else []
    shadows = {name: _build_shadow(name, config, prepared, combiner) for name in names}
    if config.monitor_only:
        logger.info("monitor_only: the update is the plain sum; `%s` is only watched.", config.combiner)
    return shadows


def _can_shadow(combiner: Combiner) -> bool:
    """Return whether a combiner needs only one Gramian; observed losses and windows are provided."""
    return combiner.by is None and combiner.requires != "jacobian"


def _shadow_names(config: TrainConfig, combiner: Combiner) -> list[str]:
    """List the shadows, and refuse combiners that cannot be one."""
    cheap = [name for name, cls in COMBINERS.items() if cls.requires in CHEAP and cls.observes == "nothing"]
    if _can_shadow(combiner) and config.combiner not in cheap:
        cheap = [name for name in COMBINERS if name in cheap or name == config.combiner]
    names = cheap if config.shadow_combiners is None else config.shadow_combiners
    for name in names:
        if name not in cheap:
            why = "measures losses again" if COMBINERS[name].requires in CHEAP else "needs more than the Gramian"
            raise InputError(
                f"`shadow_combiners`: `{name}` {why}, which only the `combiner` of a run may; allowed: "
                f"{', '.join(cheap)}."
            )
    return [*names, config.combiner] if config.monitor_only and config.combiner not in names else names


def _build_shadow(name: str, config: TrainConfig, prepared: Prepared, combiner: Combiner) -> Combiner:
    """Build a shadow: the run's own method as configured, others with their defaults."""
    if name == config.combiner and _can_shadow(combiner):
        return build_combiner(config, prepared.tasks, prepared.settings)
    bare = {key: getattr(TrainConfig, key) for key in WRAPPERS}
    arguments = config.combiner_args if name == config.combiner else {}
    own = replace(config, combiner=name, combiner_args=arguments, **bare)
    return build_combiner(own, prepared.tasks, prepared.settings)
