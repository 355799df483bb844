"""Combiners: each merges the gradients of several tasks into one update. One file per method.

`COMBINERS` is the one registry: command line, tests and documentation read it.

>>> import torch
>>> gradients = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])  # [tasks, params]
>>> COMBINERS["pcgrad"]()(gradients)
tensor([0.5848, 3.8012, 3.8012])
"""

from mtl_opt.combiners.aligned_mtl import AlignedMTL
from mtl_opt.combiners.auxiliary_gate import AuxiliaryGate
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.cagrad import CAGrad
from mtl_opt.combiners.coba import CoBa
from mtl_opt.combiners.conflict_free import ConFIG
from mtl_opt.combiners.cosmos import COSMOS
from mtl_opt.combiners.db_mtl import DBMTL
from mtl_opt.combiners.dualproj import DualProj
from mtl_opt.combiners.dwa import DynamicWeightAverage
from mtl_opt.combiners.excess_mtl import ExcessMTL
from mtl_opt.combiners.fairgrad import FairGrad
from mtl_opt.combiners.famo import FAMO
from mtl_opt.combiners.geometric_mean import GeometricMean
from mtl_opt.combiners.graddrop import GradDrop
from mtl_opt.combiners.gradnorm import GradNorm
from mtl_opt.combiners.gradvac import GradVac
from mtl_opt.combiners.imtl_g import IMTLG
from mtl_opt.combiners.imtl_l import IMTLL
from mtl_opt.combiners.krum import Krum
from mtl_opt.combiners.learning_speed import LearningSpeed
from mtl_opt.combiners.log_sum import LogSum
from mtl_opt.combiners.mean import Mean
from mtl_opt.combiners.mgda import MGDA
from mtl_opt.combiners.moco import MoCo
from mtl_opt.combiners.modo import MoDo
from mtl_opt.combiners.nash_mtl import NashMTL
from mtl_opt.combiners.pbi import PBI
from mtl_opt.combiners.pcd import PCD
from mtl_opt.combiners.pcgrad import PCGrad
from mtl_opt.combiners.priority_projection import PriorityProjection
from mtl_opt.combiners.rlw import RandomLossWeighting
from mtl_opt.combiners.sdmgrad import SDMGrad
from mtl_opt.combiners.stch import SmoothTchebycheff
from mtl_opt.combiners.sum import Sum
from mtl_opt.combiners.trimmed_mean import TrimmedMean
from mtl_opt.combiners.uncertainty import UncertaintyWeighting
from mtl_opt.combiners.uncertainty_soft import SoftOptimalUncertainty
from mtl_opt.combiners.upgrad import UPGrad
from mtl_opt.combiners.weighted import Weighted
from mtl_opt.combiners.wrappers.denoised import Denoised
from mtl_opt.combiners.wrappers.every import Every
from mtl_opt.combiners.wrappers.norm_matched import NormMatched
from mtl_opt.combiners.wrappers.scoped import Scoped
from mtl_opt.combiners.wrappers.smoothed import Smoothed

COMBINERS: dict[str, type[Combiner]] = {
    "sum": Sum,
    "mean": Mean,
    "weighted": Weighted,
    "rlw": RandomLossWeighting,
    "geometric": GeometricMean,
    "log_sum": LogSum,
    "uncertainty": UncertaintyWeighting,
    "uncertainty_soft": SoftOptimalUncertainty,
    "dwa": DynamicWeightAverage,
    "imtl_l": IMTLL,
    "stch": SmoothTchebycheff,
    "famo": FAMO,
    "coba": CoBa,
    "cosmos": COSMOS,
    "pbi": PBI,
    "learning_speed": LearningSpeed,
    "gradnorm": GradNorm,
    "pcgrad": PCGrad,
    "gradvac": GradVac,
    "mgda": MGDA,
    "cagrad": CAGrad,
    "imtl_g": IMTLG,
    "nash_mtl": NashMTL,
    "aligned_mtl": AlignedMTL,
    "upgrad": UPGrad,
    "dualproj": DualProj,
    "fairgrad": FairGrad,
    "config": ConFIG,
    "krum": Krum,
    "pcd": PCD,
    "priority": PriorityProjection,
    "auxiliary": AuxiliaryGate,
    "sdmgrad": SDMGrad,
    "modo": MoDo,
    "graddrop": GradDrop,
    "trimmed_mean": TrimmedMean,
    "excess_mtl": ExcessMTL,
    "moco": MoCo,
    "db_mtl": DBMTL,
}

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
    "Krum",
    "LearningSpeed",
    "LogSum",
    "Mean",
    "MoCo",
    "MoDo",
    "NashMTL",
    "NormMatched",
    "PCGrad",
    "PriorityProjection",
    "RandomLossWeighting",
    "SDMGrad",
    "Scoped",
    "SmoothTchebycheff",
    "Smoothed",
    "SoftOptimalUncertainty",
    "Sum",
    "TrimmedMean",
    "UPGrad",
    "UncertaintyWeighting",
    "Weighted",
]
