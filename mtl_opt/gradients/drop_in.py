"""The one-line replacement for `sum(losses).backward()`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mtl_opt.gradients.checks import check_no_gradient, refuse_wrapped
from mtl_opt.gradients.engines.per_task import PerTask
from mtl_opt.gradients.graph import Reach, reach_of, refuse_reentrant
from mtl_opt.gradients.step.combiner_input import CombinerLike, fill_absent
from mtl_opt.gradients.step.loss_roots import Losses, LossRoots, read_losses
from mtl_opt.gradients.step.loss_scaler import LossScaler
from mtl_opt.gradients.task_gradients import TaskGradients

SHARED = -1
"""Owner of a parameter that several losses reach."""

_OWNERS: "WeakKeyDictionary[nn.Module, dict[int, int]]" = WeakKeyDictionary()
"""By model and parameter: the task whose loss alone has reached it so far, or `SHARED`."""


class GradScalerLike(Protocol):
    """The member of `torch.amp.GradScaler` that is used."""

    def scale(self, outputs: Tensor) -> Tensor:
        """Multiply by the loss scale."""


def backward(
    losses: Losses,
    model: nn.Module,
    combiner: CombinerLike,
    *,
    private: Mapping[str, Sequence[nn.Parameter]] | None = None,
    counts: Tensor | None = None,
    scaler: GradScalerLike | None = None,
    retain_graph: bool = False,
) -> Tensor | None:
    """Write the combination of the task gradients into `.grad`: one line in place of `sum(losses).backward()`.

    Works for any model: every loss is differentiated itself, once; a combiner that needs losses alone takes one
    backward for all. Parameters that a single loss reaches, such as a head, keep the gradient of that loss and are no
    part of what is combined; those that no loss reaches keep `.grad = None`. A training loop that wants one backward
    for all tasks, accumulation or measurements holds a `TaskGradients` instead. Call `optimizer.zero_grad()` between
    steps. Tasks have the names the combiner is bound to, else those of the mapping, else their numbers. A combiner that
    observes (FAMO) wants `combiner.observe(new_losses)` after the optimizer step.

    Args:
        losses: One scalar per task: a sequence, `[tasks]`, or `{task: loss}`. None, or a missing name: the task is
            absent in this step.
        model: The model whose trainable parameters get `.grad`.
        combiner: Any combiner; a stateful one must be the same object in every step.
        private: Parameters of one task alone, by task; default: found in the graphs of the losses.
        counts: What each loss averages, 0 for an absent task; default 1. `[tasks]`
        scaler: A `torch.amp.GradScaler`, given the losses unscaled; the combiner then sees unscaled gradients, `.grad`
            is scaled as `scaler.step` expects it, and on an overflow filled with infinity, so that it skips the step.
        retain_graph: Keep the graphs for a further backward.

    Returns:
        The weights, 0 for absent tasks; None where the method has none, or a step overflowed. `[tasks]`

    A `ValueError` says when `losses` is a single scalar (a loss summed over tasks cannot be taken apart), one of
    them depends on nothing that is trained, on trained parameters outside `model`, or runs through a reentrant
    checkpoint, which cannot be differentiated loss by loss.

    Examples:
        >>> from mtl_opt import PCGrad
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
        >>> backward(model(x).squeeze(), model, PCGrad())
        tensor([2.0000, 1.5000])
        >>> model.weight.grad
        tensor([[0.5000, 1.5000]])
    """
    refuse_wrapped(model)
    tasks = _names(losses, combiner)
    roots = read_losses(losses, tasks)
    reach = reach_of(roots.outputs)
    _check_reach(reach, model)
    shared, own = _divide(reach, model, tasks, private)
    one = torch.ones((), device=roots.values.device)
    scale = None if scaler is None else LossScaler(float(scaler.scale(one)))
    if combiner.requires == "losses" and counts is None:
        return _one_backward(roots, shared, own, combiner, tasks, scale, retain_graph)
    grads = TaskGradients(model, tasks, "per_task", private=own, shared=shared, scaler=scale)
    assert isinstance(grads.engine, PerTask)
    grads.engine.retain_graph, grads.engine.walked = retain_graph, True
    grads.backward(losses, counts)
    if scale is None:
        return grads.combine(combiner)
    trained = [*shared, *(p for group in own.values() for p in group)]
    if grads.non_finite():
        for parameter in trained:
            parameter.grad = torch.full_like(parameter, torch.inf)
        return None
    weights = grads.combine(combiner)
    for parameter in trained:
        if parameter.grad is not None:
            parameter.grad = parameter.grad * scale.scale
    return weights


def _names(losses: Losses, combiner: CombinerLike) -> tuple[str, ...]:
    """Return the names of the tasks."""
    bound: Any = getattr(combiner, "tasks", None)
    if bound:
        return tuple(bound)
    if isinstance(losses, Mapping):
        return tuple(losses)
    if isinstance(losses, Tensor) and losses.dim() != 1:
        raise ValueError(
            f"`losses` must be [tasks], one scalar per task, got shape {tuple(losses.shape)}: a loss already summed "
            "over tasks cannot be taken apart."
        )
    return tuple(str(task) for task in range(len(losses)))


def _check_reach(reach: Reach, model: nn.Module) -> None:
    """Raise for graphs that cannot be differentiated loss by loss, or lead to parameters that would get nothing."""
    refuse_reentrant(reach)
    known = {id(parameter) for parameter in model.parameters()}
    outside = [leaf for leaf in reach.leaves.values() if isinstance(leaf, nn.Parameter) and id(leaf) not in known]
    if outside:
        raise ValueError(
            f"The losses depend on {len(outside)} trained parameters outside `model` (one has shape "
            f"{tuple(outside[0].shape)}), which would get no gradient: give a module that holds them too, such as "
            "`nn.ModuleList([model, head])`, or freeze them."
        )


def _divide(
    reach: Reach, model: nn.Module, tasks: Sequence[str], private: Mapping[str, Sequence[nn.Parameter]] | None
) -> tuple[list[nn.Parameter], dict[str, list[nn.Parameter]]]:
    """Divide the parameters that losses reach into shared ones, and those of one task alone."""
    reached = [p for p in model.parameters() if id(p) in reach.losses]
    if private is not None:
        named = {id(p) for group in private.values() for p in group}
        return [p for p in reached if id(p) not in named], {task: list(group) for task, group in private.items()}
    owners = _OWNERS.setdefault(model, {})
    present = {loss for losses in reach.losses.values() for loss in losses}
    for parameter in reached:
        found = reach.losses[id(parameter)]
        if len(found) > 1 or owners.get(id(parameter), found[0]) != found[0]:
            owners[id(parameter)] = SHARED
        elif len(present) > 1:  # one loss alone reaches everything alone
            owners.setdefault(id(parameter), found[0])
    own: dict[str, list[nn.Parameter]] = {}
    for parameter in reached:
        owner = owners.get(id(parameter), SHARED)
        if owner != SHARED:
            own.setdefault(tasks[owner], []).append(parameter)
    return [p for p in reached if owners.get(id(p), SHARED) == SHARED], own


def _one_backward(
    roots: LossRoots,
    shared: Sequence[nn.Parameter],
    own: Mapping[str, Sequence[nn.Parameter]],
    combiner: CombinerLike,
    tasks: Sequence[str],
    scale: LossScaler | None,
    retain_graph: bool,
) -> Tensor:  # -> [tasks]
    """Take the weights from the losses, and differentiate their weighted sum; private gradients stay unweighted."""
    check_no_gradient({str(i): p for i, p in enumerate([*shared, *(p for group in own.values() for p in group)])})
    combiner.bind(tasks)
    present = [row for row, given in enumerate(roots.given) if given]
    weights = fill_absent(combiner.weights(None, roots.values[present], tasks=present), present, len(tasks))
    factor = 1.0 if scale is None else scale.scale
    losses = roots.scaled(weights * factor)
    plain = roots.scaled(torch.full_like(weights, factor))
    unweighted = [task for task in present if own.get(tasks[task]) and not weights[task]]
    kept = {task: plain.grad(task, own[tasks[task]], retain_graph=True) for task in unweighted}
    losses.backward(present, retain_graph)
    for task in present:
        for i, parameter in enumerate(own.get(tasks[task], ())):
            if task in kept:
                parameter.grad = kept[task][i]
            elif parameter.grad is not None:
                parameter.grad /= weights[task].to(parameter.grad)
    return weights
