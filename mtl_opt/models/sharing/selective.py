"""Selective sharing: a map from layer names to shared, private or shared by groups of tasks."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import ClassVar

from torch import nn
from typing_extensions import override

from mtl_opt.models.sharing.base import AdapterSharing, SharingContext
from mtl_opt.models.sharing.parts.groups import GroupLora
from mtl_opt.models.sharing.parts.layers import LinearLayer
from mtl_opt.models.sharing.parts.lora import PrivateLora, SharedLora

KINDS = ("shared", "private")
FROM_TASKS = "group"
"""The name of the partition that `tasks.NAME.group` gives."""


class Selective(AdapterSharing):
    """Share layer by layer, as a map says: one adapter for all tasks, one per task, or one per group of tasks.

    With `g(t)` the group of task `t`, a layer that is mapped to a partition computes `W x + s B_g(t) A_g(t) x`. The
    adapter of a group is a shared parameter: it has a row per task in the Jacobian, zero for tasks outside the group.
    A group of one task has a private adapter.

    A pattern is a glob (`*`, `?`, `[23]`) that fits a layer when it fits its name or whole parts of it between dots:
    `q_proj`, `layers.3`, `layers.[01].mlp`, `model.layers.3.self_attn.*`. Where several fit, **the last in the map
    wins**: first the rule, then its exceptions. A layer that none fits is shared.

    Cost: the products of plain LoRA; rows of a group that do not stand behind each other are copied.

    Departures: none, the map is the user's; that a partition may be given for a layer goes back to branching networks.

    Args:
        map: `shared`, `private`, the name of one of `groups`, or `group` (the partition that `tasks.NAME.group` gives;
            a task without a group stands alone), by pattern. Default: the last block private.
        groups: Partitions by name; each a list of lists of task names with every task in one of them.

    Raises:
        ValueError: If `map` or `groups` has another form, or `map` names an unknown partition.

    References:
        Shi, Ren, Zhang, Wu, `Recon: Reducing Conflicting Gradients from the Root for Multi-Task Learning
        <https://arxiv.org/abs/2302.11289>`_, ICLR 2023; Vandenhende, Georgoulis, De Brabandere, Van Gool, `Branched
        Multi-Task Networks <https://arxiv.org/abs/1904.02920>`_, BMVC 2020.
    """

    summary: ClassVar[str] = "by layer name: one adapter for all tasks, one per task, or one per group of tasks"
    paper = "Shi et al., Recon, ICLR 2023, https://arxiv.org/abs/2302.11289"

    def __init__(
        self,
        map: Mapping[str, str] | None = None,
        groups: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> None:
        self.groups = _checked_groups(groups or {})
        self.map = _checked_map(map, self.groups)
        self._partitions: dict[str, tuple[tuple[int, ...], ...]] = {}

    @override
    def apply(self, context: SharingContext) -> None:
        names = {layer.path: _parts(layer.path) for layer in context.layers}
        for pattern in self.map or {}:
            if not any(fnmatchcase(part, pattern) for parts in names.values() for part in parts):
                raise ValueError(_no_layer(pattern, names))
        used = set((self.map or {}).values()) - set(KINDS)
        self._partitions = {name: self._partition(name, context) for name in used}
        super().apply(context)

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        kind = self._kind(layer)
        if kind in self._partitions:
            return GroupLora(layer, context.lora, context.tasks, self._partitions[kind], context.of_tasks("dropout"))
        if kind == "private":
            return PrivateLora(layer, context.lora, context.tasks, context.of_tasks("dropout"))
        return SharedLora(layer, context.lora)

    def _kind(self, layer: LinearLayer) -> str:
        """Look a layer up; the last pattern that fits wins."""
        if self.map is None:
            return "private" if layer.block is not None and layer.block == layer.num_blocks - 1 else "shared"
        parts = _parts(layer.path)
        fitting = [kind for p, kind in self.map.items() if any(fnmatchcase(part, p) for part in parts)]
        return fitting[-1] if fitting else "shared"

    def _partition(self, name: str, context: SharingContext) -> tuple[tuple[int, ...], ...]:
        """Turn the names of a partition's tasks into their indices."""
        number = {task: index for index, task in enumerate(context.tasks)}
        if name == FROM_TASKS:
            given = context.of_tasks("group")
            if not given:
                raise ValueError("`map` takes `group`, but no task has a `tasks.NAME.group`.")
            labels = {task: ("group", given[task]) if task in given else ("task", task) for task in context.tasks}
            found = [[t for t in context.tasks if labels[t] == label] for label in dict.fromkeys(labels.values())]
            return tuple(tuple(number[task] for task in group) for group in found)
        named = [task for group in self.groups[name] for task in group]
        for task in named:
            if task not in number:
                near = get_close_matches(task, context.tasks, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise ValueError(f"`groups.{name}` names the unknown task `{task}`.{hint}")
        missing = [task for task in context.tasks if task not in named]
        if missing:
            raise ValueError(f"`groups.{name}` must hold every task, but `{missing[0]}` is in none of its groups.")
        return tuple(tuple(sorted(number[task] for task in group)) for group in self.groups[name])


def _parts(path: str) -> list[str]:
    """List a layer's name and all whole parts of it between dots."""
    words = path.split(".")
    return [".".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]


def _no_layer(pattern: str, names: Mapping[str, Sequence[str]]) -> str:
    """Format the sentence for a pattern that matches no layer, with near names."""
    near = get_close_matches(pattern, dict.fromkeys(part for parts in names.values() for part in parts), n=3)
    example = next(iter(names))
    hint = f" Did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else f" A layer is `{example}`."
    return f"`map`: the pattern `{pattern}` matches no layer.{hint}"


def _checked_groups(groups: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, list[list[str]]]:
    """Check the form of the partitions."""
    if not isinstance(groups, Mapping):
        raise ValueError(f"`groups` must be a mapping from names to lists of lists of tasks, got {groups!r}.")
    for name, partition in groups.items():
        if name in {*KINDS, FROM_TASKS}:
            raise ValueError(f"`groups`: the name `{name}` has a meaning of its own in `map`; take another.")
        lists = isinstance(partition, list | tuple) and all(isinstance(g, list | tuple) and g for g in partition)
        if not lists or not partition:
            raise ValueError(f"`groups.{name}` must be a list of lists of tasks, got {partition!r}.")
        named = [task for group in partition for task in group]
        twice = [task for task in named if named.count(task) > 1]
        if twice:
            raise ValueError(f"`groups.{name}` holds the task `{twice[0]}` twice.")
    return {str(name): [[str(task) for task in group] for group in part] for name, part in groups.items()}


def _checked_map(map: Mapping[str, str] | None, groups: Mapping[str, object]) -> dict[str, str] | None:
    """Check that every pattern maps to a known kind or partition."""
    if map is None:
        return None
    if not isinstance(map, Mapping) or not map:
        raise ValueError(f"`map` must be a mapping from patterns to what their layers are, got {map!r}.")
    allowed = [*KINDS, FROM_TASKS, *groups]
    for pattern, kind in map.items():
        if kind not in allowed:
            near = get_close_matches(str(kind), allowed, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ValueError(f"`map.{pattern}` must be one of {', '.join(allowed)}, got {kind!r}.{hint}")
    return {str(pattern): kind for pattern, kind in map.items()}
