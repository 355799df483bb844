"""Checks of the arguments of one backward: whatever would silently mix tasks is refused here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtl_opt.gradients.rows.shards import unsharded


def checked_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the tasks, or raise if they are not distinct."""
    if isinstance(tasks, str):
        raise ValueError(f"`tasks` must be a sequence of names, got {tasks!r}.")
    if not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"`tasks` must be at least one name, each once, got {list(tasks)}.")
    return tuple(tasks)


def refuse_wrapped(model: nn.Module) -> None:
    """Raise for a model whose wrapper sums the gradients itself."""
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ValueError(
            f"`model` must not be wrapped in {type(model).__name__}: it would mix the tasks' rows. "
            "`TaskGradients` itself sums them over the processes of `torch.distributed`."
        )
    if type(model).__name__ == "DeepSpeedEngine":
        raise ValueError(
            "`model` is a DeepSpeed engine, which sums gradients before anybody can take them apart; call "
            "`mtl_opt.LossWeights` with a combiner of losses, or use FSDP2."
        )


def check_losses(losses: Tensor, tasks: Sequence[str], halves: bool = False) -> None:  # [tasks]
    """Raise for losses that are not one per task."""
    allowed = [(2, len(tasks)), (2 * len(tasks),)] if halves else [(len(tasks),)]
    if losses.shape not in allowed:
        raise ValueError(
            f"`losses` must be {list(allowed[0])}, one per task ({', '.join(tasks)}){' and half' if halves else ''}, "
            f"got shape {tuple(losses.shape)}: a loss already summed over tasks cannot be taken apart."
        )
    if not losses.requires_grad:
        raise ValueError("`losses` depend on no trainable parameter.")


def refuse_constant(task: str, gradients: Sequence[Tensor | None]) -> None:
    """Raise for a loss that depends on no trained parameter."""
    if not any(gradient is not None and bool(unsharded(gradient).any()) for gradient in gradients):
        raise ValueError(
            f"The loss of task `{task}` depends on no trainable parameter: its gradient is exactly 0 in the first step."
        )


def check_no_gradient(parameters: Mapping[str, nn.Parameter]) -> None:
    """Raise if a parameter already has a gradient, which would be summed over tasks."""
    for name, parameter in parameters.items():
        if parameter.grad is None:
            continue
        if not bool(unsharded(parameter.grad).any()):  # as `zero_grad(set_to_none=False)` leaves it
            parameter.grad = None
        else:
            raise ValueError(
                f"`{name}` already has a gradient: one summed over tasks cannot be taken apart. Leave the losses to "
                "`backward` of mtl_opt alone, and clear the gradients after every step."
            )


def checked_counts(counts: Tensor, losses: Tensor, tasks: Sequence[str]) -> Tensor:  # [tasks], [tasks] -> [tasks]
    """Return the counts in float64, or raise if they are not one number of tokens or rows per task."""
    if counts.shape != losses.shape:
        raise ValueError(
            f"`counts` must be {list(losses.shape)}, one per task ({', '.join(tasks)}), got shape "
            f"{tuple(counts.shape)}."
        )
    counts = counts.detach().to(losses.device, torch.float64)
    for i, count in enumerate(counts.flatten().tolist()):
        if not 0 <= count < float("inf"):
            raise ValueError(f"`counts` must be finite and at least 0, got {count} for task `{tasks[i % len(tasks)]}`.")
    return counts


def check_penalty(term: Tensor, written: bool) -> None:  # []
    """Raise for a penalty that could not reach the gradient."""
    if term.dim() != 0 or not term.requires_grad:
        raise ValueError(
            f"`term` must be a scalar that depends on a trainable parameter, got shape {tuple(term.shape)}."
        )
    if written:
        raise ValueError("The gradient of this step is already written; call `penalty` before `combine`.")


@contextmanager
def rows_untouched(version: Callable[[], int]) -> Iterator[None]:
    """Raise for a penalty whose gradient ran through wired layers: it would have gone to the rows of the tasks."""
    before = version()
    yield
    if version() != before:
        raise ValueError(
            "`term` depends on rows of the batch: compute it per task and add it to that task's loss. The rows of "
            "this step are spoilt; call `grads.zero()`."
        )


def check_kinds(parameters: Mapping[str, nn.Parameter]) -> None:
    """Raise for parameters whose gradients cannot be kept in rows or handed over."""
    for name, parameter in parameters.items():
        if parameter.is_complex():
            raise ValueError(f"`{name}` is complex, and rows are real: split it into two real parameters.")
        if getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise ValueError(
                f"`{name}` has a hook that runs when autograd has accumulated its `.grad`, which never happens here; "
                "run it after `combine`."
            )


def check_trainable(shared: bool, private: bool, engine: str) -> None:
    """Raise for a model without the trainable parameters that an engine needs."""
    if not shared and not private:
        raise ValueError("`model` has no trainable parameter: there is no gradient to combine.")
    if not shared and engine not in {"auto", "one_pass", "per_task"}:
        raise ValueError(f"`model` has no trainable shared parameter, which engine `{engine}` needs; use `one_pass`.")
