"""Metrics of predictions and statistics of results, as pure functions."""

from mtl_opt.evaluation.metrics import METRICS, check_metrics, exact_match, from_loss, score, split_name
from mtl_opt.evaluation.statistics import bootstrap_interval, delta_m, holm, mean_and_std, paired_test

__all__ = [
    "METRICS",
    "bootstrap_interval",
    "check_metrics",
    "delta_m",
    "exact_match",
    "from_loss",
    "holm",
    "mean_and_std",
    "paired_test",
    "score",
    "split_name",
]
