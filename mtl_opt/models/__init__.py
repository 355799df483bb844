"""Models: loading (full, LoRA, QLoRA), task heads, losses per task, and the tiny model of the embedded example."""

from mtl_opt.models.heads import (
    HEADS,
    LOSSES,
    POOLINGS,
    ClassificationHead,
    LanguageModelHead,
    MultiTaskModel,
    RegressionHead,
    TokenClassificationHead,
    head_options,
    predict,
    reads,
)
from mtl_opt.models.loading import LoraSettings, load_model, load_tokenizer
from mtl_opt.models.losses import task_losses
from mtl_opt.models.meta import file_bytes, model_on_meta
from mtl_opt.models.packing import check_packing
from mtl_opt.models.precision import COMPILERS, QuantizationSettings, compile_model, enable_checkpointing

__all__ = [
    "COMPILERS",
    "HEADS",
    "LOSSES",
    "POOLINGS",
    "ClassificationHead",
    "LanguageModelHead",
    "LoraSettings",
    "MultiTaskModel",
    "QuantizationSettings",
    "RegressionHead",
    "TokenClassificationHead",
    "check_packing",
    "compile_model",
    "enable_checkpointing",
    "file_bytes",
    "head_options",
    "load_model",
    "load_tokenizer",
    "model_on_meta",
    "predict",
    "reads",
    "task_losses",
]
