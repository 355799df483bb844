"""TorchJD's versions of this project's combiners, as far as it has them."""

import importlib.util
from collections.abc import Callable
from typing import Any

from torch import Tensor

Peer = Callable[[Tensor, Tensor], Tensor]  # [tasks, params], [tasks, tasks] -> [tasks] or [params]

PEER: dict[str, str] = {
    "pcgrad": "PCGradWeighting",
    "gradvac": "GradVacWeighting",
    "mgda": "MGDAWeighting",
    "cagrad": "CAGradWeighting",
    "imtl_g": "IMTLGWeighting",
    "nash_mtl": "NashMTL",
    "aligned_mtl": "AlignedMTLWeighting",
    "upgrad": "UPGradWeighting",
    "dualproj": "DualProjWeighting",
    "fairgrad": "FairGradWeighting",
    "config": "ConFIG",
    "krum": "KrumWeighting",
    "sdmgrad": "SDMGradWeighting",
    "modo": "MoDoWeighting",
}
"""Name of a combiner here: name of the class there. One without `Weighting` takes the Jacobian."""

ARGUMENTS: dict[str, dict[str, Any]] = {"cagrad": {"c": 0.5}, "fairgrad": {"alpha": 1.0}, "krum": {"n_byzantine": 0}}
"""What has no default there: the default here."""

NEEDS = {
    "cagrad": ("cvxpy", "clarabel"),
    "nash_mtl": ("cvxpy", "ecos"),
    "upgrad": ("qpsolvers", "quadprog"),
    "dualproj": ("qpsolvers", "quadprog"),
    "fairgrad": ("scipy",),
}
"""Packages a method needs there beside torchjd itself."""


def missing(name: str) -> str:
    """Say why TorchJD's version of a method cannot be measured here."""
    absent = [p for p in ("torchjd", *NEEDS.get(name, ())) if importlib.util.find_spec(p) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def peer(name: str, num_tasks: int) -> Peer:
    """Build TorchJD's version of a method."""
    from torchjd import aggregation

    arguments = {"n_tasks": num_tasks} if name == "nash_mtl" else ARGUMENTS.get(name, {})
    method = getattr(aggregation, PEER[name])(**arguments)
    if PEER[name].endswith("Weighting"):
        return lambda _, gramian: method(gramian)
    return lambda jacobian, _: method(jacobian)


def failure(variant: Callable[[], Any]) -> str:
    """Run a variant once."""
    try:
        variant()
    except Exception as error:  # a peer's solver may raise anything: it is reported
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""
