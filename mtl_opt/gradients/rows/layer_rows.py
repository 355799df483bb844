"""Where the backward of one layer puts the gradients of its tasks."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mtl_opt.gradients.rows.block_gramians import BlockGramians

SCRATCH = 2**22
"""Numbers that are computed at a time where rows are not kept (16 MiB in float32), at least one line of the weight."""


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


class ScratchRows:
    """Hand gradients to `BlockGramians` piece by piece; nothing of the size of the Jacobian is kept.

    Args:
        blocks: What becomes of the pieces.
        names: Name of each parameter in the model, by local name.
        transposed: Local names of parameters that the layer hands over transposed.
    """

    def __init__(self, blocks: "BlockGramians", names: Mapping[str, str], transposed: frozenset[str]) -> None:
        self.blocks = blocks
        self.names = tuple(names)
        self.known = names
        shapes = {own: tuple(blocks.parameters[name].shape) for own, name in names.items()}
        self.shapes = {own: shape[::-1] if own in transposed else shape for own, shape in shapes.items()}
        self.transposed = transposed

    def parts(self, name: str) -> list[slice]:
        """Cut a parameter so that the pieces of all rows stay small."""
        lines, *rest = self.shapes[name]
        per_line = self.blocks.num_rows * max(1, torch.Size(rest).numel())
        size = max(1, SCRATCH // per_line)
        return [slice(begin, min(begin + size, lines)) for begin in range(0, lines, size)]

    @contextmanager
    def open(self, name: str, part: slice = slice(None)) -> Iterator[Tensor]:  # [rows, *shape of part]
        """Give zeros to add to, and hand over what was added."""
        lines, *rest = self.shapes[name]
        size = len(range(*part.indices(lines)))
        piece = self.blocks.zeros(size, *rest)
        yield piece
        self.blocks.take(self.known[name], piece, part, name in self.transposed)

    @contextmanager
    def open_lines(self, name: str, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Give zeros for the lines that the tokens look up, in any process."""
        used = torch.zeros(self.shapes[name][0], device=tokens.device).index_fill_(0, tokens.flatten(), 1)
        lines = self.blocks.processes.sum(used).nonzero().flatten()
        piece = self.blocks.zeros(len(lines), *self.shapes[name][1:])
        yield torch.searchsorted(lines, tokens.contiguous()), piece
        self.blocks.take(self.known[name], piece, lines, name in self.transposed)

    def add(self, name: str, part: slice, gradients: Tensor) -> None:  # [rows, *shape of part]
        """Hand gradients over as they are: zeros to add them to would cost half of what the product does."""
        found = gradients.to(self.blocks.columns.device, self.blocks.columns.dtype)
        self.blocks.take(self.known[name], found, part, name in self.transposed)

    def combining(self, name: str) -> tuple[Tensor, Tensor] | None:  # -> ([rows], [*shape])
        """Say whether the weights are known, so that no row is needed any more."""
        weights = self.blocks.weights_of(self.known[name])
        return None if weights is None else (weights, self.blocks.view(self.known[name], name in self.transposed))
