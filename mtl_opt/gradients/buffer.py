"""The Jacobian in one preallocated buffer: a row per task, and a view per parameter to write into."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def layer_of(name: str) -> str:
    """Name the layer of a parameter: everything up to the first number in its path, such as `model.layers.3`.

    Args:
        name: Name of the parameter in the model.

    Returns:
        The layer; for a parameter outside any numbered layer the path of its module.

    Examples:
        >>> layer_of("model.layers.3.self_attn.q_proj.lora_A.default.weight")
        'model.layers.3'
        >>> layer_of("model.embed_tokens.weight")
        'model.embed_tokens'
    """
    path = name.split(".")
    for i, part in enumerate(path):
        if part.isdigit():
            return ".".join(path[: i + 1])
    return ".".join(path[:-1]) or name


PIECE = 4096
"""Columns of one product of a Gramian."""


class RowBuffer:
    """Hold one gradient row per task over the shared parameters, and the combined gradient.

    Args:
        parameters: Name and parameter of everything shared, in model order.
        num_tasks: Number of rows.

    Attributes:
        rows: The Jacobian while it is being filled. `[tasks, params]`
        combined: The gradient that `write` hands to the optimizer. `[params]`
        tensors: Columns of each parameter, by name.
        layers: Columns of each layer, by name.
    """

    def __init__(self, parameters: Sequence[tuple[str, nn.Parameter]], num_tasks: int) -> None:
        by_layer: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in parameters:
            by_layer.setdefault(layer_of(name), []).append((name, parameter))
        self.parameters: dict[str, nn.Parameter] = {}
        self.tensors: dict[str, slice] = {}
        self.layers: dict[str, slice] = {}
        end = 0
        for layer, members in by_layer.items():  # a layer's parameters stand side by side: its Gramian is one product
            begin = end
            for name, parameter in members:
                self.parameters[name] = parameter
                self.tensors[name] = slice(end, end + parameter.numel())
                end += parameter.numel()
            self.layers[layer] = slice(begin, end)
        first = next(iter(self.parameters.values()))
        exact = any(p.dtype == torch.float64 for p in self.parameters.values())
        dtype = torch.float64 if exact else torch.float32
        self.rows = torch.zeros(num_tasks, end, dtype=dtype, device=first.device)
        self.combined = torch.zeros(end, dtype=dtype, device=first.device)
        self._handed = [  # made once: for many small parameters making views would be most of handing over
            (parameter, self.combined[self.tensors[name]].view(parameter.shape))
            for name, parameter in self.parameters.items()
        ]

    def view(self, name: str) -> Tensor:  # [tasks, *shape]
        """Show the rows of one parameter in its own shape.

        Args:
            name: Name of the parameter.

        Returns:
            A view into `rows`. `[tasks, *shape]`
        """
        return self.rows[:, self.tensors[name]].view(len(self.rows), *self.parameters[name].shape)

    def gramian(self) -> Tensor:  # [tasks, tasks]
        """Compute the inner products of all rows.

        Returns:
            The Gramian over all shared parameters. `[tasks, tasks]`
        """
        return _gramian(self.rows)

    def gramians(self, by: str) -> dict[str, Tensor]:  # {block: [tasks, tasks]}
        """Compute one Gramian per block; they add up to the whole one.

        Args:
            by: "layer" or "tensor".

        Returns:
            Gramian of each block. `{block: [tasks, tasks]}`

        Raises:
            ValueError: If `by` is neither.
        """
        if by not in {"layer", "tensor"}:
            raise ValueError(f"`by` must be 'layer' or 'tensor', got {by!r}.")
        blocks = self.layers if by == "layer" else self.tensors
        return {name: _gramian(self.rows[:, columns]) for name, columns in blocks.items()}

    def gramian_over(self, over: str | Sequence[str]) -> Tensor:  # [tasks, tasks]
        """Compute the inner products over some layers only.

        Args:
            over: "all", "last" (the last layer), or names of layers.

        Returns:
            The Gramian over these layers. `[tasks, tasks]`

        Raises:
            ValueError: If a layer does not exist.
        """
        if over == "all":
            return self.gramian()
        names = [list(self.layers)[-1]] if over == "last" else [over] if isinstance(over, str) else list(over)
        unknown = [name for name in names if name not in self.layers]
        if unknown or not names:
            raise ValueError(f"`over` must name layers among {', '.join(self.layers)}, got {unknown or names}.")
        return torch.stack([_gramian(self.rows[:, self.layers[name]]) for name in names]).sum(0)

    def apply(self, weights: Tensor | Mapping[str, Tensor]) -> None:  # [tasks] or {block: [tasks]}
        """Put the weighted sum of the rows into `combined`.

        Args:
            weights: One weight per task, for all columns `[tasks]` or for each block by name.

        Raises:
            ValueError: If the blocks are neither all layers nor all tensors, or weights are not one per task.
        """
        for given in [weights] if isinstance(weights, Tensor) else weights.values():
            if given.shape != (len(self.rows),):
                raise ValueError(f"`weights` must be [{len(self.rows)}], one per task, got shape {tuple(given.shape)}.")
        if isinstance(weights, Tensor):
            torch.mv(self.rows.T, weights.to(self.rows), out=self.combined)
            return
        blocks = next((b for b in (self.layers, self.tensors) if set(b) == set(weights)), None)
        if blocks is None:
            raise ValueError(f"`weights` must have one entry per layer or per tensor, got {sorted(weights)[:5]}….")
        for name, columns in blocks.items():
            torch.mv(self.rows[:, columns].T, weights[name].to(self.rows), out=self.combined[columns])

    def put(self, gradient: Tensor) -> None:  # [params]
        """Copy a gradient into `combined`.

        Args:
            gradient: One number per column. `[params]`

        Raises:
            ValueError: If it has another shape: a copy would repeat it silently.
        """
        if gradient.shape != self.combined.shape:
            raise ValueError(
                f"`gradient` must be [{len(self.combined)}], one number per shared parameter, got shape "
                f"{tuple(gradient.shape)}."
            )
        self.combined.copy_(gradient)

    def hand_over(self) -> None:
        """Make the combined gradient the `.grad` of every shared parameter, without a copy where dtypes agree."""
        for parameter, view in self._handed:
            parameter.grad = view.to(parameter.dtype)


def _gramian(
    rows: Tensor,  # [tasks, columns]
) -> Tensor:  # [tasks, tasks]
    """Compute `J Jᵀ` piece by piece: sums of short products round less, and threads share the pieces."""
    whole = rows.shape[1] // PIECE
    pieces = rows[:, : whole * PIECE].view(len(rows), whole, PIECE).transpose(0, 1)
    rest = rows[:, whole * PIECE :]
    return (pieces @ pieces.mT).sum(0) + rest @ rest.T
