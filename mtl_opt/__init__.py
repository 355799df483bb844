"""Gradient-conflict research toolkit: one gradient per task, pluggable combiners, every conflict measured.

>>> import mtl_opt
>>> sorted(mtl_opt.COMBINERS)[:3]
['gradnorm', 'mean', 'pcgrad']
"""

from mtl_opt.batch import TaskBatch, current_task_rows, task_rows
from mtl_opt.combiners import COMBINERS, Combiner, GradNorm, Mean, PCGrad, Sum, UncertaintyWeighting, Weighted
from mtl_opt.errors import InputError
from mtl_opt.gradients import TaskGradients, backward

__version__ = "0.1.0"

__all__ = [
    "COMBINERS",
    "Combiner",
    "GradNorm",
    "InputError",
    "Mean",
    "PCGrad",
    "Sum",
    "TaskBatch",
    "TaskGradients",
    "UncertaintyWeighting",
    "Weighted",
    "backward",
    "current_task_rows",
    "task_rows",
]
