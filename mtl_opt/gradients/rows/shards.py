"""Tensors that FSDP2 has sharded: this process's part, the whole, and the way back."""

from torch import Tensor, nn


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def unsharded(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor from all processes; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def sharded_like(gradient: Tensor, parameter: nn.Parameter) -> Tensor:
    """Wrap this process's part of a gradient as the gradient of a sharded parameter; any other as it is."""
    if not hasattr(parameter, "to_local"):
        return gradient
    from torch.distributed.tensor import DTensor  # not every build of torch has it

    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        gradient, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape,
        stride=parameter.stride(),
    )  # fmt: skip
