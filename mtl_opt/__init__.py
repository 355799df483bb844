"""Gradient-conflict research toolkit: one gradient per task, pluggable combiners, every conflict measured.

>>> import mtl_opt
>>> mtl_opt.COMBINERS["pcgrad"].__name__
'PCGrad'
"""

from typing import TYPE_CHECKING, Any

from mtl_opt.batch import TaskBatch, current_task_rows, task_rows
from mtl_opt.combiners import (
    COMBINERS,
    COSMOS,
    DBMTL,
    FAMO,
    IMTLG,
    IMTLL,
    MGDA,
    PBI,
    PCD,
    AlignedMTL,
    AuxiliaryGate,
    CAGrad,
    CoBa,
    Combiner,
    ConFIG,
    Denoised,
    DualProj,
    DynamicWeightAverage,
    Every,
    ExcessMTL,
    FairGrad,
    GeometricMean,
    GradDrop,
    GradNorm,
    GradVac,
    Krum,
    LearningSpeed,
    LogSum,
    Mean,
    MoCo,
    MoDo,
    NashMTL,
    NormMatched,
    PCGrad,
    PriorityProjection,
    RandomLossWeighting,
    Scoped,
    SDMGrad,
    Smoothed,
    SmoothTchebycheff,
    SoftOptimalUncertainty,
    Sum,
    TrimmedMean,
    UncertaintyWeighting,
    UPGrad,
    Weighted,
)
from mtl_opt.errors import InputError
from mtl_opt.generation import generate
from mtl_opt.gradients import LossWeights, OnlineProjection, TaskGradients, backward

if TYPE_CHECKING:
    from mtl_opt.models import TaskAttention

__version__ = "0.1.0"

__all__ = [
    "COMBINERS",
    "COSMOS",
    "DBMTL",
    "FAMO",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "PBI",
    "PCD",
    "AlignedMTL",
    "AuxiliaryGate",
    "CAGrad",
    "CoBa",
    "Combiner",
    "ConFIG",
    "Denoised",
    "DualProj",
    "DynamicWeightAverage",
    "Every",
    "ExcessMTL",
    "FairGrad",
    "GeometricMean",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "InputError",
    "Krum",
    "LearningSpeed",
    "LogSum",
    "LossWeights",
    "Mean",
    "MoCo",
    "MoDo",
    "NashMTL",
    "NormMatched",
    "OnlineProjection",
    "PCGrad",
    "PriorityProjection",
    "RandomLossWeighting",
    "SDMGrad",
    "Scoped",
    "SmoothTchebycheff",
    "Smoothed",
    "SoftOptimalUncertainty",
    "Sum",
    "TaskAttention",
    "TaskBatch",
    "TaskGradients",
    "TrimmedMean",
    "UPGrad",
    "UncertaintyWeighting",
    "Weighted",
    "backward",
    "current_task_rows",
    "generate",
    "task_rows",
]


def __getattr__(name: str) -> Any:
    """Import what stands beside transformers only when it is asked for: the rest of the package needs torch alone."""
    if name == "TaskAttention":
        from mtl_opt.models import TaskAttention

        return TaskAttention
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
