"""Where the backward of one layer puts the gradients of its tasks."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.columns import Columns


class LayerRows(Protocol):
    """What a wired layer asks for."""

    names: tuple[str, ...]

    def parts(self, name: str) -> list[slice]:
        """Cut a parameter along its first dimension into what is filled at a time."""

    def open(self, name: str, part: slice = slice(None)) -> AbstractContextManager[Tensor]:  # [rows, *shape of part]
        """Give a tensor to add every row's gradient to."""

    def open_lines(self, name: str, tokens: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor]]:
        """Give the same for the lines of a table that tokens look up, and where in it each token's line is."""

    def add(self, name: str, part: slice, gradients: Tensor) -> None:  # [rows, *shape of part]
        """Add the gradients of all rows at once."""

    def combining(self, name: str) -> tuple[Tensor, Tensor] | None:  # ([rows], [*shape])
        """Give a weight per row, and where the weighted sum of the rows is wanted in their place; None: the rows."""


class PieceTaker(Protocol):
    """What takes the gradients of a layer piece by piece where no rows are kept (`BlockGramians`)."""

    columns: Columns
    processes: Processes
    num_rows: int

    def zeros(self, *shape: int) -> Tensor:  # -> [rows, *shape]
        """Make a piece to be filled."""

    def take(self, name: str, piece: Tensor, where: slice | Tensor, transposed: bool) -> None:  # piece [rows, *shape]
        """Take a filled piece."""

    def weights_of(self, name: str) -> Tensor | None:  # -> [rows]
        """Return the weights of the second backward; None in the first."""

    def target(self, name: str, transposed: bool) -> Tensor:  # -> [*shape]
        """Return the part of the combined gradient that belongs to a parameter."""


class BufferRows:
    """Add to the rows of the Jacobian.

    Args:
        views: Views into the buffer, by local name. `[rows, *shape]`
    """

    def __init__(self, views: Mapping[str, Tensor]) -> None:
        self.names = tuple(views)
        self.views = views

    def parts(self, name: str) -> list[slice]:  # noqa: ARG002 - every parameter is filled at once
        """Fill a parameter at once."""
        return [slice(None)]

    def open(self, name: str, part: slice = slice(None)) -> AbstractContextManager[Tensor]:  # noqa: ARG002
        """Give the view."""
        return nullcontext(self.views[name])

    def open_lines(self, name: str, tokens: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor]]:
        """Give the view of the whole table."""
        return nullcontext((tokens, self.views[name]))

    def add(self, name: str, part: slice, gradients: Tensor) -> None:  # noqa: ARG002 - [rows, *shape]
        """Add to the view."""
        self.views[name].add_(gradients.to(self.views[name].device))

    def combining(self, name: str) -> None:
        """Say that rows are wanted."""
