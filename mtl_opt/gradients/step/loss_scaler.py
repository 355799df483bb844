"""A loss scale for float16: halved when a gradient overflows, doubled after many steps without."""

from collections.abc import Mapping
from typing import Any


class LossScaler:
    """Scale losses before the backward of a float16 forward; the rows are divided again when the step is closed.

    `torch.amp.GradScaler` looks for overflow in `.grad`, which is written only after the rows were combined; this one
    is told whether any task's row overflowed, so that optimizer *and* combiner skip the step together.

    Args:
        scale: First factor.
        growth_interval: Steps without overflow after which the factor doubles.

    Attributes:
        scale: Factor of the next backward.
    """

    def __init__(self, scale: float = 2.0**16, growth_interval: int = 2000) -> None:
        self.scale = scale
        self.growth_interval = growth_interval
        self.good_steps = 0

    def update(self, overflow: bool) -> None:
        """Halve the factor after an overflow, double it after many steps without.

        Args:
            overflow: Whether a row of the step was not finite.
        """
        if overflow:
            self.scale, self.good_steps = max(self.scale / 2, 1.0), 0
            return
        self.good_steps += 1
        if self.good_steps == self.growth_interval:
            self.scale, self.good_steps = self.scale * 2, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the scale and the steps since the last overflow.

        Returns:
            What `load_state_dict` takes.
        """
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Args:
            state: What `state_dict` gave.
        """
        self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
