"""The processes that take one step together: what each has summed becomes the sum of all."""

import torch
import torch.distributed as dist
from torch import Tensor


class Processes:
    """Sum over the processes of a group; a process on its own sends nothing.

    Args:
        group: A group of `torch.distributed`; None for all processes, where it is initialised.

    Attributes:
        sent: Bytes handed to all-reduces so far, the payload of one process.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.sent = 0

    @property
    def world(self) -> int:
        """Number of processes."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return dist.get_rank(self.group) if self.world > 1 else 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor, group=self.group)
            self.sent += tensor.numel() * tensor.element_size()
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:  # [*shape] -> [processes, *shape]
        """Collect a small tensor from all processes."""
        found = torch.zeros(self.world, *tensor.shape, dtype=tensor.dtype, device=tensor.device)
        found[self.rank] = tensor
        return self.sum(found)
