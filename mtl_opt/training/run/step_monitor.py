"""What is measured of a step beside what the step itself needs: shadow combiners, layers, a window of steps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mtl_opt.combiners import COMBINERS, Combiner, Sum
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients
from mtl_opt.gradients.step.combiner_input import input_of, of_present
from mtl_opt.gradients.update_products import update_products
from mtl_opt.monitor import StepEvent, WindowReading
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.run.shadows import SeenStep, Shadows
from mtl_opt.training.setup.combiner import WRAPPERS, build_combiner
from mtl_opt.training.setup.data import Prepared

logger = logging.getLogger(__name__)

CHEAP = {"losses", "gramian"}
"""What a shadow may require: what every step has anyway."""


class StepMonitor:
    """Measure steps: a little in every one, the rest where a log line is due. Every process must measure.

    Args:
        shadows: Combiners that are asked and not leading_combiner.
        layers: Whether log lines have the Gramian of every layer.
        logging_steps: Steps between two log lines.
        total_steps: Steps of the run; the last one has a log line too.
        observes: Losses that are measured again after a step: "nothing", "batch" or "validation".
    """

    def __init__(
        self, shadows: Shadows, layers: bool, logging_steps: int, total_steps: int, observes: str = "nothing"
    ) -> None:
        self.shadows = shadows
        self.layers = layers
        self.logging_steps = logging_steps
        self.total_steps = total_steps
        self.observes = observes

    def is_due(self, step: int) -> bool:
        """Tell whether a step ends with a log line."""
        return step % self.logging_steps == 0 or step == self.total_steps

    def before_combining(self, grads: TaskGradients, step: int) -> None:
        """Show the step to the shadows, as the combiner is about to see it."""
        if not self.shadows.shadows or not grads.buffer.parameters:  # nothing shared: no combiner is asked
            return
        asked = self.shadows.last_inputs if self.is_due(step) else self.shadows.inputs
        present = grads.present
        # On the CPU in their own precision: a combiner moves them there anyway, and one transfer is enough for all.
        gramians = {name: of_present(input_of(one, grads), present).cpu() for name, one in asked.items()}
        self.shadows.see(SeenStep(present, grads.losses()[present].cpu(), gramians))

    def after_combining(self, grads: TaskGradients, event: StepEvent) -> StepEvent:
        """Measure what a log line says of its last step."""
        if not self.is_due(event.step) or not grads.buffer.parameters:
            return event
        layers = {n: g.cpu() for n, g in grads.gramian(by="layer").items()} if self.layers else None
        shadows = self.shadows.read() if self.shadows.shadows else None
        event = replace(event, layer_gramians=layers, shadows=shadows, window=_window(grads))
        found = update_products(grads) if event.weights is None else None
        return event if found is None else replace(event, products=found[0].cpu(), update_norm=found[1])

    def observe(self, losses: Tensor, tasks: Sequence[int]) -> None:  # [present]
        """Show the shadows losses that were measured again after the step."""
        self.shadows.observe(self.observes, losses, tasks)

    def state_dict(self) -> dict[str, Any]:
        """Collect what must travel in a checkpoint."""
        return self.shadows.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.shadows.load_state_dict(state)


def _window(grads: TaskGradients) -> WindowReading | None:
    """Read the statistics of the last steps; None where there are none (yet)."""
    estimate = grads.window.estimate() if grads.window is not None else None
    if grads.window is None or estimate is None:
        return None
    return WindowReading(estimate.blocks, estimate.power, len(estimate.blocks) * grads.window.steps_per_block)


def build_monitor(config: TrainConfig, prepared: Prepared, combiner: Combiner, total_steps: int) -> StepMonitor:
    """Build what measures the steps of a run."""
    if config.monitor_only and not _can_shadow(combiner):
        what = f"scope: {config.scope}" if combiner.by else f"combiner: {config.combiner}"
        raise InputError(
            f"`monitor_only: true` watches what a combiner does with the Gramian of a step; `{what}` needs more."
        )
    names = _shadow_names(config, combiner) if len(prepared.tasks) > 1 else []
    shadows = {name: _build_shadow(name, config, prepared, combiner) for name in names}
    if config.monitor_only:
        logger.info("monitor_only: the update is the plain sum; `%s` is only watched.", config.combiner)
    shadows_of = Shadows(shadows, len(prepared.tasks), used=config.combiner)
    return StepMonitor(shadows_of, config.layer_conflict, config.logging_steps, total_steps, combiner.observes)


def leading_combiner(config: TrainConfig, combiner: Combiner) -> Combiner:
    """Choose the combiner whose update is taken."""
    if not config.monitor_only:
        return combiner
    plain = Sum()
    plain.bind(combiner.tasks or ())
    return plain


def _can_shadow(combiner: Combiner) -> bool:
    """Tell whether one Gramian is enough for a combiner; that it observes or needs a window is provided for."""
    return combiner.by is None and combiner.requires != "jacobian"


def _shadow_names(config: TrainConfig, combiner: Combiner) -> list[str]:
    """List the shadows, and refuse what cannot be one."""
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
    """Build one shadow: the run's own method as it is, every other one as the registry has it."""
    if name == config.combiner and _can_shadow(combiner):
        return build_combiner(config, prepared.tasks, prepared.settings)
    bare = {key: getattr(TrainConfig, key) for key in WRAPPERS}
    arguments = config.combiner_args if name == config.combiner else {}
    own = replace(config, combiner=name, combiner_args=arguments, **bare)
    return build_combiner(own, prepared.tasks, prepared.settings)
