"""What the graphs of losses reach: which parameters, and through which kinds of nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge


@dataclass(frozen=True)
class Reach:
    """Hold what some losses depend on.

    Attributes:
        leaves: Tensors that want a gradient, by id, in the order in which a backward would meet them last.
        losses: Numbers of the losses that reach each of them, by id.
        reentrant: Whether a loss runs through a reentrant checkpoint, which `autograd.grad` never enters.
    """

    leaves: dict[int, Tensor]
    losses: dict[int, list[int]]
    reentrant: bool


def reach_of(outputs: Sequence[Tensor | GradientEdge | None]) -> Reach:
    """Walk the graphs of some losses, once for all of them."""
    roots = [None if output is None else _node_of(output) for output in outputs]
    owners: dict[Any, int] = {}  # bits of the losses that reach a node
    for number, root in enumerate(roots):
        if root is not None:
            owners[root] = owners.get(root, 0) | 1 << number
    leaves: dict[int, Tensor] = {}
    found: dict[int, list[int]] = {}
    reentrant = False
    for node in _in_order(list(owners)):
        bits = owners[node]
        for after, _ in node.next_functions:
            if after is not None:
                owners[after] = owners.get(after, 0) | bits
        leaf = getattr(node, "variable", None)  # of a node that accumulates into `.grad`
        if leaf is not None:
            leaves[id(leaf)] = leaf
            found[id(leaf)] = [number for number in range(len(roots)) if bits >> number & 1]
        reentrant = reentrant or node.name() == "CheckpointFunctionBackward"
    return Reach(leaves, found, reentrant)


def refuse_reentrant(reach: Reach) -> None:
    """Raise for graphs that cannot be differentiated loss by loss."""
    if reach.reentrant:
        raise ValueError(
            "The losses run through a reentrant checkpoint, which cannot be differentiated loss by loss: its gradients "
            "would be 0. Checkpoint with `use_reentrant=False`, or use engine `one_pass`."
        )


def _node_of(output: Tensor | GradientEdge) -> Any:
    """Return the node at which the backward of an output begins."""
    if isinstance(output, GradientEdge):
        return output.node
    if output.grad_fn is not None:
        return output.grad_fn
    node: Any = output.expand_as(output).grad_fn  # of a parameter that is itself a loss
    return node.next_functions[0][0]


def _in_order(roots: Sequence[Any]) -> list[Any]:
    """Sort the nodes below some roots so that each comes before what it leads to."""
    done: set[Any] = set()
    order: list[Any] = []
    stack: list[tuple[Any, bool]] = [(root, False) for root in roots]
    while stack:
        node, finished = stack.pop()
        if finished:
            order.append(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack += [(after, False) for after, _ in node.next_functions if after is not None and after not in done]
    return order[::-1]
