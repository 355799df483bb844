"""From weights or a gradient of one's own to the `.grad` of every shared parameter."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mtl_opt.gradients.rows.columns import Columns


def write_grads(views: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
    """Make views the `.grad` of their parameters, without a copy where dtypes agree."""
    for parameter, view in views:
        gradient = view.to(parameter.dtype)
        parameter.grad = _as_sharded(gradient, parameter) if hasattr(parameter, "to_local") else gradient


def copy_checked(gradient: Tensor, combined: Tensor) -> None:  # [params], [params]
    """Copy a gradient of the user's own making."""
    if gradient.shape != combined.shape:
        raise ValueError(
            f"`gradient` must be [{len(combined)}], one number per shared parameter, got shape {tuple(gradient.shape)}."
        )
    combined.copy_(gradient)


def weights_by_columns(
    weights: Tensor | Mapping[str, Tensor], columns: Columns, num_tasks: int
) -> list[tuple[slice, Tensor]]:  # [tasks] or {block: [tasks]}
    """Pair the weights with the columns they hold for."""
    for given in [weights] if isinstance(weights, Tensor) else weights.values():
        if given.shape != (num_tasks,):
            raise ValueError(f"`weights` must be [{num_tasks}], one per task, got shape {tuple(given.shape)}.")
    if isinstance(weights, Tensor):
        return [(slice(0, columns.size), weights)]
    blocks = next((b for b in (columns.layers, columns.tensors) if set(b) == set(weights)), None)
    if blocks is None:
        raise ValueError(f"`weights` must have one entry per layer or per tensor, got {sorted(weights)[:5]}….")
    return [(at, weights[name]) for name, at in blocks.items()]


def _as_sharded(gradient: Tensor, parameter: nn.Parameter) -> Tensor:
    """Make this process's part of a gradient the gradient of a sharded parameter."""
    from torch.distributed.tensor import DTensor

    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        gradient, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape,
        stride=parameter.stride(),
    )  # fmt: skip
