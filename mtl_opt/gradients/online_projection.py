"""Projection while accumulating: constant memory, no row is kept, and something is lost for it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class OnlineProjection:
    """Add task gradients to `.grad` one after the other, each without the part that opposes what is there already.

    For every parameter tensor, with `a` what has been accumulated and `g` the next task's gradient:
    `g ← g - min(⟨g, a⟩, 0) / ‖a‖² · a`, then `a ← a + g`. Memory is that of plain training whatever the number of
    tasks. What is lost against `PCGrad`: the result depends on the order of the tasks (shuffle it), only the later
    gradient is projected, onto the sum of the earlier ones instead of each, and no Gramian is measured.

    Args:
        parameters: What is trained; each tensor is a block of its own.

    Attributes:
        cosines: Cosine of the last gradient with what was accumulated before it, for every tensor where both are not
            0; for looking at conflict without projecting use `TaskGradients`.

    Examples:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> online = OnlineProjection([weight])
        >>> online.backward(weight @ torch.tensor([1.0, 0.0]))
        >>> online.backward(weight @ torch.tensor([-1.0, 1.0]))
        >>> weight.grad
        tensor([1., 1.])

    References:
        T. Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020 (the projection). The one-sided, online
        form is that of the callback `MiniPCGrad` of allenai/rslearn.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.cosines: list[float] = []

    def backward(self, loss: Tensor, retain_graph: bool = False) -> None:  # []
        """Differentiate one task's loss and add what does not oppose the gradient so far.

        Args:
            loss: Loss of one task, or of one task's micro-batch. `[]`
            retain_graph: Keep the graph for the next task's loss on the same forward.
        """
        found = torch.autograd.grad(loss, self.parameters, retain_graph=retain_graph, allow_unused=True)
        products, lengths = [], []
        for parameter, gradient in zip(self.parameters, found, strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = gradient.clone()
                continue
            kept = parameter.grad
            product, square = (gradient * kept).sum(), (kept * kept).sum()
            products.append(product)
            lengths.append(gradient.norm() * square.sqrt())
            factor = torch.where(square > 0, product.clamp(max=0) / square, 0)  # no transfer: decided on the device
            kept.add_(gradient - factor * kept)
        self.cosines = _cosines(products, lengths)


def _cosines(products: list[Tensor], lengths: list[Tensor]) -> list[float]:
    """Divide where something is there to divide by, in one transfer."""
    if not products:
        return []
    pairs = torch.stack([torch.stack(products), torch.stack(lengths)], 1).tolist()
    return [product / length for product, length in pairs if length > 0]
