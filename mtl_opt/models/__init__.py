"""Models: loading (full, LoRA), losses per task, and the tiny model of the embedded example."""

from mtl_opt.models.loading import LoraSettings, load_model, load_tokenizer
from mtl_opt.models.losses import task_losses

__all__ = ["LoraSettings", "load_model", "load_tokenizer", "task_losses"]
