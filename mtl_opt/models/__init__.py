"""Models: loading (full, LoRA, QLoRA), ways of sharing, losses per task, and the tiny model of the example."""

from mtl_opt.models.loading import load_base, load_model, load_tokenizer
from mtl_opt.models.lora_settings import LoraSettings
from mtl_opt.models.losses import task_losses
from mtl_opt.models.merging import merge
from mtl_opt.models.meta import file_bytes, model_on_meta
from mtl_opt.models.packing import check_packing
from mtl_opt.models.precision import COMPILERS, QuantizationSettings, compile_model, enable_checkpointing
from mtl_opt.models.sharing import (
    SHARING,
    Sharing,
    TaskOptions,
    TaskProducts,
    build_sharing,
    folder_names,
    load_sharing,
    private_parameters,
    products_of,
    read_about,
    row_terms,
    save_peft_folder,
    save_sharing,
    share,
)

__all__ = [
    "COMPILERS",
    "SHARING",
    "LoraSettings",
    "QuantizationSettings",
    "Sharing",
    "TaskOptions",
    "TaskProducts",
    "build_sharing",
    "check_packing",
    "compile_model",
    "enable_checkpointing",
    "file_bytes",
    "folder_names",
    "load_base",
    "load_model",
    "load_sharing",
    "load_tokenizer",
    "merge",
    "model_on_meta",
    "private_parameters",
    "products_of",
    "read_about",
    "row_terms",
    "save_peft_folder",
    "save_sharing",
    "share",
    "task_losses",
]
