"""The same training step with other packages; imported where it is used, so that the others run without them."""

import copy
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from benchmarks.step import Method, Step, emptier, fixed_weights
from benchmarks.workload import Workload


def torchjd_autojac(work: Workload, method: Method, chunk: int | None = None) -> Step:
    """Build the step with TorchJD's `autojac`: one backward per task, at once (vmap) or `chunk` at a time."""
    from torchjd.aggregation import Aggregator, Constant, PCGrad
    from torchjd.autojac import backward, jac_to_grad

    parameters = work.parameters
    aggregator: Aggregator = PCGrad() if method == "pcgrad" else Constant(fixed_weights(work))

    def fill() -> None:
        backward(list(work.losses()), inputs=parameters, parallel_chunk_size=chunk)
        jac_to_grad(parameters, aggregator)

    return Step(fill, emptier(parameters))


def torchjd_sequential(work: Workload, method: Method) -> Step:
    """Build the same with one task at a time."""
    return torchjd_autojac(work, method, chunk=1)


def torchjd_autogram(work: Workload, method: Method) -> Step:
    """Build the step with TorchJD's Gramian engine, followed by the backward of the weighted losses."""
    from torchjd.aggregation import ConstantWeighting, PCGradWeighting, Weighting
    from torchjd.autogram import Engine

    # The engine hooks every layer: on a copy of the modules, with the same parameters, so that only its step pays.
    shared = {id(tensor): tensor for tensor in [*work.model.parameters(), *work.model.buffers()]}
    own = replace(work, model=copy.deepcopy(work.model, memo=shared))
    engine = Engine(own.model, batch_dim=None)  # a loss is of several rows: the batch is no dimension of the losses
    weighting: Weighting = PCGradWeighting() if method == "pcgrad" else ConstantWeighting(fixed_weights(work))

    def fill() -> None:
        losses = own.losses()
        weights = weighting(engine.compute_gramian(losses))
        losses.backward(weights)

    return Step(fill, emptier(work.parameters))


def pytorch_optimizer(work: Workload, method: Method) -> Step:
    """Build the step with `pytorch_optimizer`'s PCGrad, a wrapper of an optimizer."""
    from pytorch_optimizer import PCGrad

    parameters = work.parameters
    wrapper = PCGrad(torch.optim.SGD(parameters, lr=0.1), reduction="sum")  # its step is never taken

    def fill() -> None:
        if method == "pcgrad":
            wrapper.pc_backward(list(work.losses()))
            return
        rows, _, _ = wrapper.pack_grad(list(work.losses()))
        combined = fixed_weights(work) @ torch.stack(rows)
        for parameter, part in zip(parameters, combined.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    return Step(fill, emptier(parameters))


PEERS: Mapping[str, Callable[[Workload, Method], Step]] = {
    "torchjd": torchjd_autojac,
    "torchjd_sequential": torchjd_sequential,
    "torchjd_autogram": torchjd_autogram,
    "pytorch_optimizer": pytorch_optimizer,
}
"""How to build the step of each; a name begins with the package that it needs."""


def missing(variant: str) -> str:
    """Say why a peer cannot be measured here."""
    package = "torchjd" if variant.startswith("torchjd") else variant
    return "" if importlib.util.find_spec(package) else f"the package {package} is not installed"
