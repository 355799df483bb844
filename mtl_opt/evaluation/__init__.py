"""Was it worth it? Pure functions of predictions and of results."""

from mtl_opt.evaluation.metrics import exact_match
from mtl_opt.evaluation.statistics import delta_m, mean_and_std

__all__ = ["delta_m", "exact_match", "mean_and_std"]
