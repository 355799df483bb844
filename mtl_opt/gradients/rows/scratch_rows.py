"""Gradients of one layer where no rows are kept: pieces that are filled, passed on and discarded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from mtl_opt.gradients.rows.layer_rows import PieceTaker

SCRATCH = 2**22
"""Largest piece where rows are not kept, in numbers (16 MiB in float32); at least one line of the weight."""


class ScratchRows:
    """Pass the gradients of a layer on piece by piece; nothing of the size of the Jacobian is allocated.

    Args:
        blocks: Consumes the pieces.
        names: Name of each parameter in the model, by local name.
        transposed: Local names of parameters whose gradients arrive transposed.
    """

    def __init__(self, blocks: PieceTaker, names: Mapping[str, str], transposed: frozenset[str]) -> None:
        self.blocks = blocks
        self.names = tuple(names)
        self.known = names
        shapes = {own: tuple(blocks.columns.parameters[name].shape) for own, name in names.items()}
        self.shapes = {own: shape[::-1] if own in transposed else shape for own, shape in shapes.items()}
        self.transposed = transposed

    def parts(self, name: str) -> list[slice]:
        """Split a parameter so that one piece of all rows has at most `SCRATCH` numbers."""
        lines, *rest = self.shapes[name]
        per_line = self.blocks.num_rows * max(1, torch.Size(rest).numel())
        size = max(1, SCRATCH // per_line)
        return [slice(begin, min(begin + size, lines)) for begin in range(0, lines, size)]

    @contextmanager
    def open(self, name: str, part: slice = slice(None)) -> Iterator[Tensor]:  # [rows, *shape of part]
        """Open zeros to add to, and pass on the sums."""
        lines, *rest = self.shapes[name]
        size = len(range(*part.indices(lines)))
        piece = self.blocks.zeros(size, *rest)
        yield piece
        self.blocks.take(self.known[name], piece, part, name in self.transposed)

    @contextmanager
    def open_lines(self, name: str, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Open zeros for the lines that tokens look up in any process, with the line of each token."""
        # All processes must agree on the lines, or their pieces could not be summed.
        used = torch.zeros(self.shapes[name][0], device=tokens.device).index_fill_(0, tokens.flatten(), 1)
        lines = self.blocks.processes.sum(used).nonzero().flatten()
        piece = self.blocks.zeros(len(lines), *self.shapes[name][1:])
        yield torch.searchsorted(lines, tokens.contiguous()), piece
        self.blocks.take(self.known[name], piece, lines, name in self.transposed)

    def add(self, name: str, part: slice, gradients: Tensor) -> None:  # [rows, *shape of part]
        """Pass gradients on as they are: adding them to zeros first would cost half as much as the product."""
        found = gradients.to(self.blocks.columns.device, self.blocks.columns.dtype)
        self.blocks.take(self.known[name], found, part, name in self.transposed)

    def combining(self, name: str) -> tuple[Tensor, Tensor] | None:  # -> ([rows], [*shape])
        """Return the weights and the target of the second backward; None in the first."""
        weights = self.blocks.weights_of(self.known[name])
        return None if weights is None else (weights, self.blocks.target(self.known[name], name in self.transposed))
