"""Was it worth it? Pure functions of predictions and of results."""

from mtl_opt.evaluation.labels import accuracy, macro_f1, mean_squared_error, pearson
from mtl_opt.evaluation.metrics import exact_match
from mtl_opt.evaluation.statistics import delta_m, mean_and_std

__all__ = ["accuracy", "delta_m", "exact_match", "macro_f1", "mean_and_std", "mean_squared_error", "pearson"]
