"""The one-line replacement for `sum(losses).backward()`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_opt.gradients.step.combiner_input import CombinerLike
from mtl_opt.gradients.task_gradients import TaskGradients


def backward(losses: Tensor | Sequence[Tensor], model: nn.Module, combiner: CombinerLike) -> Tensor | None:
    """Write the combination of the task gradients into `.grad`: one line in place of `sum(losses).backward()`.

    Works for any model (engine `per_task`, one backward per loss). A training loop that wants one backward for all
    tasks, accumulation or measurements holds a `TaskGradients` instead. Call `optimizer.zero_grad()` between steps.
    The tasks have the names the combiner is bound to, else their numbers.

    Args:
        losses: One scalar per task, not summed. `[tasks]`
        model: The model whose trainable parameters get `.grad`.
        combiner: Any combiner; a stateful one must be the same object in every step.

    Returns:
        The weights, None where the method has none. `[tasks]`

    Raises:
        ValueError: If `losses` is a single scalar (a loss already summed over tasks cannot be taken apart), or one of
            them depends on nothing that is trained.

    Examples:
        >>> from mtl_opt import PCGrad
        >>> model = nn.Linear(2, 1, bias=False)
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
        >>> backward(model(x).squeeze(), model, PCGrad())
        tensor([2.0000, 1.5000])
        >>> model.weight.grad
        tensor([[0.5000, 1.5000]])
    """
    constant = [] if isinstance(losses, Tensor) else [t for t, loss in enumerate(losses) if not loss.requires_grad]
    if constant:
        raise ValueError(f"`losses[{constant[0]}]` depends on no trainable parameter.")
    stacked = losses if isinstance(losses, Tensor) else torch.stack(list(losses))
    if stacked.dim() != 1:
        raise ValueError(
            f"`losses` must be [tasks], one scalar per task, got shape {tuple(stacked.shape)}: a loss already summed "
            "over tasks cannot be taken apart."
        )
    tasks = getattr(combiner, "tasks", None) or [str(t) for t in range(len(stacked))]
    grads = TaskGradients(model, tasks, "per_task")
    grads.backward(stacked)
    return grads.combine(combiner)
