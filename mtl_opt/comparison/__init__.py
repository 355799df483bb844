"""Many runs: every method with every seed, baselines, the search for rates; one line of `results.jsonl` each."""

from mtl_opt.comparison.comparison import compare
from mtl_opt.training.config.comparison import compare_config
from mtl_opt.training.config.comparison_keys import CompareConfig

__all__ = ["CompareConfig", "compare", "compare_config"]
