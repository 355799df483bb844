"""The engines by name, and the choice of `auto`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtl_opt.gradients.engines.feature import Feature
from mtl_opt.gradients.engines.one_pass import CannotWireError, OnePass
from mtl_opt.gradients.engines.per_task import PerTask
from mtl_opt.gradients.engines.two_pass import TwoPass
from mtl_opt.gradients.layers.open_segments import OpenSegments
from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.block_gramians import BlockGramians
from mtl_opt.gradients.rows.feature_rows import FeatureRows
from mtl_opt.gradients.rows.gradient_rows import GradientRows
from mtl_opt.gradients.rows.row_buffer import RowBuffer
from mtl_opt.gradients.step.loss_roots import ScaledLosses

ENGINES = ("auto", "one_pass", "per_task", "two_pass")


class Engine(Protocol):
    """The interface of an engine: it differentiates the losses of a micro-batch."""

    name: str
    wires: bool  # whether it must know whose rows a batch has, and can check that no loss mixes them

    def open(self) -> AbstractContextManager[None]:
        """Prepare the model for a forward and its backward."""

    def agreed_counts(self, counts: Tensor) -> Tensor:  # [rows]
        """Return the counts that decide which losses are differentiated, the same in all processes that must agree."""

    def backward(self, losses: ScaledLosses, present: Sequence[int]) -> None:
        """Add the gradient of every present loss."""

    def verify(self, losses: ScaledLosses, present: Sequence[int], tasks: Sequence[str]) -> None:
        """Check that no loss depends on rows of another task."""


def build_buffer(
    name: str,
    shared: Sequence[tuple[str, nn.Parameter]],
    num_tasks: int,
    processes: Processes,
    halves: bool,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> GradientRows:
    """Build the rows that an engine fills."""
    if name.startswith("feature:"):
        if halves:
            raise ValueError("Engine `feature` cannot tell two halves of the rows apart; use `one_pass`.")
        return FeatureRows(shared, num_tasks, processes)
    if name not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(ENGINES)} or 'feature:MODULE', got {name!r}.")
    if name == "two_pass":
        return BlockGramians(shared, num_tasks, processes, halves=halves)
    return RowBuffer(shared, num_tasks, processes, halves=halves, dtype=dtype, device=device)


def build_engine(
    name: str,
    model: nn.Module,
    buffer: Any,  # the rows of this engine, as `build_buffer` makes them
    private: Sequence[Sequence[nn.Parameter]],
    segments: OpenSegments,
) -> tuple[Engine, str]:
    """Build the engine asked for; "auto" takes `one_pass` where the model allows it."""
    if name == "per_task":
        return PerTask(model, buffer, private), "asked for"
    if name.startswith("feature:"):
        return Feature(model, buffer, private, name.removeprefix("feature:")), "asked for"
    if name == "two_pass":
        return TwoPass(model, buffer, private, segments), "asked for"
    try:
        return OnePass(model, buffer, private, segments), "every shared parameter is in a layer that can be wired"
    except CannotWireError as error:
        if name == "one_pass":
            raise
        return PerTask(model, buffer, private), str(error)
