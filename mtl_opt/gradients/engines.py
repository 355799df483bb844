"""The engines by name, and the choice of `auto`."""

from collections.abc import Sequence

from torch import nn

from mtl_opt.gradients.buffer import RowBuffer
from mtl_opt.gradients.one_pass import CannotWireError, OnePass
from mtl_opt.gradients.per_task import PerTask
from mtl_opt.gradients.segments import OpenSegments

ENGINES = ("auto", "one_pass", "per_task")


def build_engine(
    name: str,
    model: nn.Module,
    buffer: RowBuffer,
    private: Sequence[Sequence[nn.Parameter]],
    segments: OpenSegments,
) -> tuple[PerTask | OnePass, str]:
    """Build the engine asked for; "auto" takes `one_pass` where the model allows it.

    Args:
        name: One of `ENGINES`.
        model: The model.
        buffer: Where the rows go.
        private: Parameters that belong to each row of the buffer alone.
        segments: Says which row each part of the batch goes to while rows are open.

    Returns:
        The engine, and why it was taken.

    Raises:
        ValueError: If there is no such engine.
        CannotWireError: If `one_pass` was asked for and cannot be had.
    """
    if name not in ENGINES:
        raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {name!r}.")
    if name == "per_task":
        return PerTask(model, buffer, private), "asked for"
    try:
        return OnePass(model, buffer, private, segments), "every shared parameter is in a layer that can be wired"
    except CannotWireError as error:
        if name == "one_pass":
            raise
        return PerTask(model, buffer, private), str(error)
