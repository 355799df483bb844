"""Sums over the processes of a run, for what a way of sharing measures itself."""

import torch.distributed as dist
from torch import Tensor


def over_processes(value: Tensor) -> Tensor:
    """Add up a tensor over all processes; every one of them must ask."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    on_gpu = dist.get_backend() == "nccl"
    total = value.clone() if on_gpu or value.device.type == "cpu" else value.cpu()
    dist.all_reduce(total)
    return total.to(value.device)
