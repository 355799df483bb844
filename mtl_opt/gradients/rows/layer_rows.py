"""The interface between the backward of a layer and the storage of rows, and its implementation on a buffer."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor

from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.rows.columns import Columns


class LayerRows(Protocol):
    """The rows of one layer, as its backward fills them; parameters go by their local names."""

    names: tuple[str, ...]

    def parts(self, name: str) -> list[slice]:
        """Split a parameter along its first dimension into parts that are filled one after the other."""

    def open(self, name: str, part: slice = slice(None)) -> AbstractContextManager[Tensor]:  # [rows, *shape of part]
        """Open a tensor to which the gradient of every row is added."""

    def open_lines(self, name: str, tokens: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor]]:
        """Open the lines of a table that tokens look up, with the line of each token."""

    def add(self, name: str, part: slice, gradients: Tensor) -> None:  # [rows, *shape of part]
        """Add the gradients of all rows at once."""

    def combining(self, name: str) -> tuple[Tensor, Tensor] | None:  # ([rows], [*shape])
        """Return weights and a target where the weighted sum of the rows is wanted; None where the rows are."""


class PieceTaker(Protocol):
    """The consumer of pieces where no rows are kept (`BlockGramians`)."""

    columns: Columns
    processes: Processes
    num_rows: int

    def zeros(self, *shape: int) -> Tensor:  # -> [rows, *shape]
        """Allocate a piece of all rows."""

    def take(self, name: str, piece: Tensor, where: slice | Tensor, transposed: bool) -> None:  # piece [rows, *shape]
        """Consume a filled piece."""

    def weights_of(self, name: str) -> Tensor | None:  # -> [rows]
        """Return the weights of the second backward; None in the first."""

    def target(self, name: str, transposed: bool) -> Tensor:  # -> [*shape]
        """Return the part of the combined gradient that belongs to a parameter."""


class BufferRows:
    """Add to the rows of the Jacobian.

    Args:
        views: Views into the buffer, by local name. `[rows, *shape]`
        known: Name of each parameter in the model, by local name.
        reached: Takes the names of the parameters to which something is added.
    """

    def __init__(self, views: Mapping[str, Tensor], known: Mapping[str, str], reached: set[str]) -> None:
        self.names = tuple(views)
        self.views = views
        self.known = known
        self.reached = reached

    def parts(self, name: str) -> list[slice]:  # noqa: ARG002 - every parameter is filled at once
        """Return one part: a parameter is filled at once."""
        return [slice(None)]

    def open(self, name: str, part: slice = slice(None)) -> AbstractContextManager[Tensor]:  # noqa: ARG002
        """Open the view into the buffer."""
        self.reached.add(self.known[name])
        return nullcontext(self.views[name])

    def open_lines(self, name: str, tokens: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor]]:
        """Open the view of the whole table."""
        self.reached.add(self.known[name])
        return nullcontext((tokens, self.views[name]))

    def add(self, name: str, part: slice, gradients: Tensor) -> None:  # noqa: ARG002 - [rows, *shape]
        """Add to the view."""
        self.reached.add(self.known[name])
        self.views[name].add_(gradients.to(self.views[name].device))

    def combining(self, name: str) -> None:
        """Return None: the rows are wanted."""
