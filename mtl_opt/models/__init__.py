"""Models: loading (full, LoRA, QLoRA), losses per task, and the tiny model of the embedded example."""

from mtl_opt.models.loading import LoraSettings, load_model, load_tokenizer
from mtl_opt.models.losses import task_losses
from mtl_opt.models.meta import file_bytes, model_on_meta
from mtl_opt.models.packing import check_packing
from mtl_opt.models.precision import COMPILERS, QuantizationSettings, compile_model, enable_checkpointing

__all__ = [
    "COMPILERS",
    "LoraSettings",
    "QuantizationSettings",
    "check_packing",
    "compile_model",
    "enable_checkpointing",
    "file_bytes",
    "load_model",
    "load_tokenizer",
    "model_on_meta",
    "task_losses",
]
