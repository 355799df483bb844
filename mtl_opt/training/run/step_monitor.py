"""Measurements of a step beyond what the step itself needs: shadow combiners, layers, running statistics."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mtl_opt.gradients import TaskGradients
from mtl_opt.monitor import StepEvent, WindowReading
from mtl_opt.training.run.shadows import SeenStep, Shadows

logger = logging.getLogger(__name__)


class StepMonitor:
    """Measure steps: a little in every one, the rest where a log line is due; every process must take part.

    Args:
        shadows: Combiners whose weights are computed and not applied.
        layers: Whether log lines have the Gramian of every layer.
        logging_steps: Steps between two log lines.
        total_steps: Steps of the run; the last one has a log line too.
        observes: Losses measured again after a step: "nothing", "batch" or "validation".
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
        """Return whether a step ends with a log line."""
        return step % self.logging_steps == 0 or step == self.total_steps

    def before_combining(self, grads: TaskGradients, step: int) -> None:
        """Show the step to the shadows as the combiner is about to see it."""
        if not self.shadows.shadows or not grads.buffer.parameters:  # nothing shared: no combiner is asked
            return
        asked = self.shadows.last_inputs if self.is_due(step) else self.shadows.inputs
        present = grads.present
        # On the CPU in their own precision: a combiner moves them there anyway, and one transfer is enough for all.
        gramians = {name: grads.input_of(one).cpu() for name, one in asked.items()}
        self.shadows.see(SeenStep(present, grads.losses()[present].cpu(), gramians))

    def after_combining(self, grads: TaskGradients, event: StepEvent) -> StepEvent:
        """Add the measurements of a log line to the event of its last step."""
        if not self.is_due(event.step) or not grads.buffer.parameters:
            return event
        layers = {n: g.cpu() for n, g in grads.gramian(by="layer").items()} if self.layers else None
        shadows = self.shadows.read() if self.shadows.shadows else None
        event = replace(event, layer_gramians=layers, shadows=shadows, window=_window(grads))
        found = grads.buffer.update_products() if event.weights is None else None
        return event if found is None else replace(event, products=found[0].cpu(), update_norm=found[1])

    def observe(self, losses: Tensor, tasks: Sequence[int]) -> None:  # [present]
        """Show the shadows losses measured again after the step."""
        self.shadows.observe(self.observes, losses, tasks)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return self.shadows.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.shadows.load_state_dict(state)


def _window(grads: TaskGradients) -> WindowReading | None:
    """Read the running statistics; None where there are none (yet)."""
    estimate = grads.window.estimate() if grads.window is not None else None
    if grads.window is None or estimate is None:
        return None
    return WindowReading(estimate.blocks, estimate.power, len(estimate.blocks) * grads.window.steps_per_block)
