"""Models: loading (full, LoRA, QLoRA), task heads, ways of sharing, losses per task, and the tiny model."""

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
    labels_of,
    predict,
    put_heads,
    reads,
    save_heads,
)
from mtl_opt.models.loading import load_base, load_model, load_tokenizer
from mtl_opt.models.lora_settings import LoraSettings
from mtl_opt.models.losses import task_losses
from mtl_opt.models.meta import file_bytes, model_on_meta
from mtl_opt.models.packing import check_packing
from mtl_opt.models.precision import COMPILERS, QuantizationSettings, compile_model, enable_checkpointing
from mtl_opt.models.sharing import (
    SHARING,
    Sharing,
    TaskAttention,
    TaskOptions,
    build_sharing,
    load_sharing,
    private_parameters,
    row_terms,
    save_sharing,
    share,
)

__all__ = [
    "COMPILERS",
    "HEADS",
    "LOSSES",
    "POOLINGS",
    "SHARING",
    "ClassificationHead",
    "LanguageModelHead",
    "LoraSettings",
    "MultiTaskModel",
    "QuantizationSettings",
    "RegressionHead",
    "Sharing",
    "TaskAttention",
    "TaskOptions",
    "TokenClassificationHead",
    "build_sharing",
    "check_packing",
    "compile_model",
    "enable_checkpointing",
    "file_bytes",
    "head_options",
    "labels_of",
    "load_base",
    "load_model",
    "load_sharing",
    "load_tokenizer",
    "model_on_meta",
    "predict",
    "private_parameters",
    "put_heads",
    "reads",
    "row_terms",
    "save_heads",
    "save_sharing",
    "share",
    "task_losses",
]
