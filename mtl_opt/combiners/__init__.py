"""Combiners: each merges the gradients of several tasks into one update. One file per method.

`COMBINERS` is the one registry: command line, tests and documentation read it.

>>> import torch
>>> gradients = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])  # [tasks, params]
>>> COMBINERS["pcgrad"]()(gradients)
tensor([0.5848, 3.8012, 3.8012])
"""

from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.gradnorm import GradNorm
from mtl_opt.combiners.mean import Mean
from mtl_opt.combiners.pcgrad import PCGrad
from mtl_opt.combiners.sum import Sum
from mtl_opt.combiners.uncertainty import UncertaintyWeighting
from mtl_opt.combiners.weighted import Weighted

COMBINERS: dict[str, type[Combiner]] = {
    "sum": Sum,
    "mean": Mean,
    "weighted": Weighted,
    "uncertainty": UncertaintyWeighting,
    "gradnorm": GradNorm,
    "pcgrad": PCGrad,
}

__all__ = ["COMBINERS", "Combiner", "GradNorm", "Mean", "PCGrad", "Sum", "UncertaintyWeighting", "Weighted"]
