"""How the rows of a step lie to the gradient that was written: needed where that is no weighted sum of them."""

from typing import TYPE_CHECKING

from torch import Tensor

from mtl_opt.gradients.rows.products import row_products
from mtl_opt.gradients.rows.row_buffer import RowBuffer

if TYPE_CHECKING:
    from mtl_opt.gradients.task_gradients import TaskGradients


def update_products(grads: "TaskGradients") -> tuple[Tensor, float] | None:  # [tasks]
    """Compute `J d` and `|d|` for the gradient `d` that was written: one pass over the rows.

    With weights `w` this is `G w` and needs no rows. A method that looks at the Jacobian itself (GradDrop), or whose
    weights differ from block to block, leaves only the gradient. Every process must ask.

    Examples:
        >>> import torch
        >>> from mtl_opt import TaskGradients
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> grads = TaskGradients(model, ["a", "b"], "per_task")
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> with grads.rows(torch.tensor([0, 1])):
        ...     grads.backward(model(x).squeeze(1))
        >>> grads.write_vector(torch.tensor([1.0, 0.0]))
        >>> update_products(grads)
        (tensor([3., 0.]), 1.0)
    """
    buffer = grads.buffer
    if not isinstance(buffer, RowBuffer):
        return None
    found = row_products(buffer.jacobian, buffer.combined)
    square = buffer.combined.square().sum()
    if buffer.columns.sharded:
        found, square = buffer.processes.sum(found), buffer.processes.sum(square)
    return found, float(square.sqrt())
