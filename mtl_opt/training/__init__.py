"""Training: configuration, the step, the loop, checkpoints, comparisons. Here the boxes are wired together."""

from mtl_opt.training.compare import compare
from mtl_opt.training.compare_config import compare_config
from mtl_opt.training.config import TrainConfig, train_config
from mtl_opt.training.loop import Interrupted, train
from mtl_opt.training.step import training_step
from mtl_opt.training.yaml_file import override, read_yaml

__all__ = [
    "Interrupted",
    "TrainConfig",
    "compare",
    "compare_config",
    "override",
    "read_yaml",
    "train",
    "train_config",
    "training_step",
]
