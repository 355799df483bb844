"""Attention heads of each task's own inside a pretrained projection: which features they are, what is added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from mtl_opt.models.lora import LoraSettings
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import SharedLora
from mtl_opt.models.sharing.parts.routing import TaskDropout, by_task, parameters_by_task, rows_of_tasks

QUERY = frozenset({"q_proj", "query", "q_lin", "query_proj", "q"})
KEY_VALUE = frozenset({"k_proj", "v_proj", "key", "value", "k_lin", "v_lin", "key_proj", "value_proj", "k", "v"})
OUTPUT = frozenset({"o_proj", "out_proj", "c_proj", "dense", "out_lin", "wo", "o"})
SIDE_BY_SIDE = frozenset({"c_attn", "qkv_proj", "wqkv"})
"""All queries, then all keys, then all values."""
BY_GROUP = frozenset({"query_key_value"})
"""The queries of a group of heads, their key and their value, group after group."""


class HeadLayout:
    """How a model's attention divides its features into heads.

    Args:
        config: Configuration of the model.
        heads: Query heads that shall belong to one task: the last ones.

    Raises:
        ValueError: If the model says nothing of its heads, or so many cannot be private.
    """

    def __init__(self, config: Any, heads: int) -> None:
        text = config.get_text_config()
        total = _number(text, "num_attention_heads", "n_head", "num_heads")
        if total is None:
            raise ValueError(f"`heads`: the architecture `{config.model_type}` has no number of attention heads.")
        alone = bool(getattr(text, "multi_query", False)) and not getattr(text, "new_decoder_architecture", False)
        groups = 1 if alone else _number(text, "num_key_value_heads", "num_kv_heads") or total
        self.per_group = total // groups  # query heads that share a key and a value
        if heads % self.per_group or heads >= total:
            allowed = [str(number) for number in range(self.per_group, total, self.per_group)]
            raise ValueError(
                f"`heads` must be one of {', '.join(allowed) or 'no number at all'}, got {heads}: the model has "
                f"{total} query heads, {self.per_group} to a key and a value, and at least one key stays shared."
            )
        self.groups, self.own_groups = groups, heads // self.per_group

    def check(self, model: nn.Module, layers: Sequence[LinearLayer]) -> None:
        """Refuse attention whose queries, keys, values or output are not all projected by layers of known names."""
        blocks: dict[int | None, set[str]] = {}
        for layer in layers:
            blocks.setdefault(layer.block, set()).add(layer.path.rpartition(".")[2].lower())
        for block, names in blocks.items():
            apart = names & QUERY and len(names & KEY_VALUE) == 2
            if not (names & OUTPUT and (apart or names & (SIDE_BY_SIDE | BY_GROUP))):
                raise ValueError(
                    f"`heads`: block {block} of {type(model).__name__} has no queries, keys, values and output of "
                    f"known names (projections found: {', '.join(sorted(names))}); leave `heads` out."
                )

    def private_features(self, layer: LinearLayer) -> tuple[bool, list[int]]:
        """Find the features of the private heads in a projection.

        Args:
            layer: The projection.

        Returns:
            Whether they are inputs of the layer (else outputs), and which.
        """
        name = layer.path.rpartition(".")[2].lower()
        if name in OUTPUT:
            return True, self._last([self.per_group], layer.in_features)
        if name in QUERY:
            return False, self._last([self.per_group], layer.out_features)
        if name in KEY_VALUE:
            return False, self._last([1], layer.out_features)
        if name in SIDE_BY_SIDE:
            return False, self._last([self.per_group, 1, 1], layer.out_features)
        if name in BY_GROUP:
            return False, self._last([self.per_group + 2], layer.out_features)
        raise ValueError(f"`heads`: where the heads lie in `{layer.path}` is not known for this architecture.")

    def _last(self, parts: Sequence[int], features: int) -> list[int]:
        """List the features of the last groups in parts that lie side by side, each of so many heads per group."""
        width, rest = divmod(features, self.groups * sum(parts))
        if rest:
            raise ValueError(f"`heads`: {features} features are no whole number of {self.groups * sum(parts)} heads.")
        found, begin = list[int](), 0
        for part in parts:
            end = begin + self.groups * part * width
            found += range(end - self.own_groups * part * width, end)
            begin = end
        return found


def _number(config: Any, *names: str) -> int | None:
    """Read the first of some numbers that a configuration has."""
    return next((int(value) for name in names if (value := getattr(config, name, None))), None)


@dataclass(frozen=True)
class _Part:
    """Sizes of the part of a layer that an adapter adds to."""

    in_features: int
    out_features: int
    device: torch.device


class PrivateHeads(nn.Module):
    """Add to a projection: to the features of private heads a matrix of each task, to the others one shared adapter.

    With inputs `x_s` and `x_p` of shared and private heads, an output projection adds `s B A x_s + D_t x_p`; a
    projection to queries, keys and values adds `s B A x` to the outputs of shared heads and `D_t x` to those of
    private ones. `D_t` begins with zeros, so that training starts from the pretrained heads.

    Args:
        layer: The projection it adds to.
        lora: Rank, scale and dropout of the shared adapter.
        tasks: Names of the tasks.
        inputs: Whether the private features are inputs of the layer.
        private: The private features.
        dropout: Dropout on the input of a task's matrix, by task; where it is missing that of `lora`.
    """

    own: Tensor  # [private features]
    others: Tensor  # [shared features]

    def __init__(
        self,
        layer: LinearLayer,
        lora: LoraSettings,
        tasks: Sequence[str],
        inputs: bool,
        private: Sequence[int],
        dropout: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.tasks, self.inputs = tuple(tasks), inputs
        self.in_features, self.out_features = layer.in_features, layer.out_features
        own, width = set(private), layer.in_features if inputs else layer.out_features
        others = [feature for feature in range(width) if feature not in own]
        sizes = (len(others), layer.out_features) if inputs else (layer.in_features, len(others))
        self.shared = SharedLora(_Part(*sizes, layer.device), lora)
        self.register_buffer("own", torch.tensor(sorted(own), device=layer.device), persistent=False)
        self.register_buffer("others", torch.tensor(others, device=layer.device), persistent=False)
        shape = (layer.out_features, len(own)) if inputs else (len(own), layer.in_features)
        self.task_heads = nn.ParameterList(nn.Parameter(torch.zeros(shape, device=layer.device)) for _ in tasks)
        self.dropout = TaskDropout(tasks, lora.dropout, dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        segments = rows_of_tasks(x, len(self.tasks))
        x = x.to(self.task_heads[0].dtype)
        mine, common = (x[..., self.own], x[..., self.others]) if self.inputs else (x, x)
        mine = by_task(self.dropout(mine, segments, self.training), segments, self._of_task)
        common = self.shared(common)
        if self.inputs:
            return common + mine
        return torch.cat([common, mine.to(common.dtype)], -1)[..., torch.cat([self.others, self.own]).argsort()]

    def _of_task(self, task: int, x: Tensor) -> Tensor:
        """Run the rows of one task through its matrix."""
        return F.linear(x, self.task_heads[task])

    def task_parameters(self) -> dict[str, list[nn.Parameter]]:
        """List the private parameters by task.

        Returns:
            The matrix of each task.
        """
        return parameters_by_task(self.tasks, self.task_heads)

    def lora_of(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the factors of what is added for a task, of the shared adapter and of its own heads.

        Args:
            task: Its index.

        Returns:
            `A` `[rank + features, in]` and `B` with the scale in it `[out, rank + features]`.
        """
        (a, b), mine = self.shared.lora_of(task), self.task_heads[task]
        if self.inputs:
            wide = a.new_zeros(len(a), self.in_features).index_copy(1, self.others, a)
            return torch.cat([wide, self._chosen(self.in_features, mine)]), torch.cat([b, mine], 1)
        tall = b.new_zeros(self.out_features, b.shape[1]).index_copy(0, self.others, b)
        return torch.cat([a, mine]), torch.cat([tall, self._chosen(self.out_features, mine).T], 1)

    def _chosen(self, width: int, like: Tensor) -> Tensor:  # -> [features, width]
        """Build the matrix that picks the private features."""
        return torch.eye(width, dtype=like.dtype, device=like.device)[self.own]
