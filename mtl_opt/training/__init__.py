"""Training one run, where the boxes are wired together: config, then setup, preview and run."""

from mtl_opt.training.config.run_config import TrainConfig, train_config
from mtl_opt.training.config.yaml_file import override, read_yaml
from mtl_opt.training.run.loop import Interrupted, train
from mtl_opt.training.run.step import training_step

__all__ = ["Interrupted", "TrainConfig", "override", "read_yaml", "train", "train_config", "training_step"]
