"""The columns of a row: shared parameters side by side, grouped by layer."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_opt.gradients.rows.shards import local_shard


def layer_of(name: str) -> str:
    """Return the layer of a parameter: its path up to the first number, such as `model.layers.3`.

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


class Columns:
    """Assign every shared parameter its columns in a row.

    Args:
        parameters: Name and parameter of everything shared, in model order.

    Attributes:
        parameters: The parameters by name, in the order of the columns.
        tensors: Columns of each parameter, by name.
        layers: Columns of each layer, by name.
        size: Number of columns.
        sharded: Whether the parameters are sharded, so that a row has its columns spread over the processes.
        dtype: float64 where a parameter has it, else float32.
    """

    def __init__(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
        by_layer: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in parameters:
            by_layer.setdefault(layer_of(name), []).append((name, parameter))
        self.parameters: dict[str, nn.Parameter] = {}
        self.tensors: dict[str, slice] = {}
        self.layers: dict[str, slice] = {}
        end = 0
        # The parameters of a layer are neighbours, so that its Gramian is one product over one slice.
        for layer, members in by_layer.items():
            begin = end
            for name, parameter in members:
                self.parameters[name] = parameter
                self.tensors[name] = slice(end, end + local_shard(parameter).numel())
                end = self.tensors[name].stop
            self.layers[layer] = slice(begin, end)
        self.size = end
        shards = [hasattr(p, "to_local") for p in self.parameters.values()]
        if any(shards) and not all(shards):
            raise ValueError("FSDP2 may shard all shared parameters or none (`ignored_params`), not some.")
        self.sharded = bool(shards) and all(shards)
        exact = any(p.dtype == torch.float64 for p in self.parameters.values())
        self.dtype = torch.float64 if exact else torch.float32

    @property
    def device(self) -> torch.device:
        """Device of the parameters; the CPU where there are none."""
        return next((local_shard(p).device for p in self.parameters.values()), torch.device("cpu"))

    def empty_row(self) -> Tensor:  # -> [params]
        """Allocate one gradient, on the device of the parameters."""
        return torch.zeros(self.size, dtype=self.dtype, device=self.device)

    def blocks(self, by: str) -> dict[str, slice]:
        """Return the columns of every layer or tensor."""
        if by not in {"layer", "tensor"}:
            raise ValueError(f"`by` must be 'layer' or 'tensor', got {by!r}.")
        return self.layers if by == "layer" else self.tensors

    def layers_over(self, over: str | Sequence[str]) -> list[str]:
        """Resolve a combiner's `over` to names of layers."""
        if over == "all":
            return list(self.layers)
        names = list(self.layers)[-1:] if over == "last" else [over] if isinstance(over, str) else list(over)
        unknown = [name for name in names if name not in self.layers]
        if unknown or (not names and self.layers):  # where nothing is shared there is no last layer
            raise ValueError(f"`over` must name layers among {', '.join(self.layers)}, got {unknown or names}.")
        return names

    def weights_by_slice(
        self, weights: Tensor | Mapping[str, Tensor], num_tasks: int
    ) -> list[tuple[slice, Tensor]]:  # [tasks] or {block: [tasks]}
        """Pair weights with the columns they hold for; blocks are all layers or all tensors, by name."""
        for given in [weights] if isinstance(weights, Tensor) else weights.values():
            if given.shape != (num_tasks,):
                raise ValueError(f"`weights` must be [{num_tasks}], one per task, got shape {tuple(given.shape)}.")
        if isinstance(weights, Tensor):
            return [(slice(0, self.size), weights)]
        blocks = next((b for b in (self.layers, self.tensors) if set(b) == set(weights)), None)
        if blocks is None:
            raise ValueError(f"`weights` must have one entry per layer or per tensor, got {sorted(weights)[:5]}….")
        return [(at, weights[name]) for name, at in blocks.items()]
