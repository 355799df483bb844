"""A model without its weights: all names, shapes and layers on the device `meta`, from the configuration alone."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import nn
from transformers import AutoConfig

from mtl_opt.errors import InputError, first_line
from mtl_opt.models.heads.backbone import auto_class, kind_of_model, kind_of_text_model, without_pooler
from mtl_opt.models.lora import LoraSettings, with_adapters
from mtl_opt.models.precision import QuantizationSettings
from mtl_opt.models.starting_adapter import UNREADABLE, check_base, read_adapter

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def model_on_meta(
    name_or_path: str,
    *,
    lora: LoraSettings | None,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    quantization: QuantizationSettings | None = None,
    heads: bool = False,
) -> tuple[Any, dict[int, tuple[int, int]]]:
    """Build what `load_model` would load, without reading or allocating a weight.

    Args:
        name_or_path: Folder or hub name of the base model.
        lora: Adapters to add; None trains every parameter.
        dtype: Number format of the base.
        trust_remote_code: Whether code that comes with the model may run.
        quantization: How the base would be stored; its weights keep their plain shapes here.
        heads: Whether heads will be put on it.

    Returns:
        The model, and numbers and outputs of each weight that would be quantised, by the weight's identity.

    Raises:
        InputError: If there is no such configuration.
    """
    if lora is not None and lora.start is not None:
        check_base(read_adapter(lora.start), lora.start, name_or_path)
    try:
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
        kind = (kind_of_model if heads else kind_of_text_model)(config, name_or_path)
        with torch.device("meta"):
            model = auto_class(kind).from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
            model = without_pooler(model) if heads else model
            quantized = _to_be_quantized(model) if quantization is not None else {}
            model = model if lora is None else with_adapters(model, lora, weights=False)
            return model, quantized
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"`model_name_or_path`: no model could be read from `{name_or_path}` ({first_line(error)})."
        ) from error


def _to_be_quantized(model: Any) -> dict[int, tuple[int, int]]:
    """Find the weights that bitsandbytes would quantise: those of all linear layers but the output."""
    output = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not output]
    return {id(m.weight): (m.weight.numel(), m.out_features) for m in layers}


def file_bytes(name_or_path: str) -> int | None:
    """Add up the files that hold a model's weights; nothing is downloaded.

    Args:
        name_or_path: Folder or hub name.

    Returns:
        Bytes; None where the files are not on this machine.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name_or_path, local_files_only=True, allow_patterns=list(WEIGHTS)))
        except (LocalEntryNotFoundError, ValueError, OSError):
            return None
    for pattern in WEIGHTS:
        files = list(folder.glob(pattern))
        if files:
            return sum(file.stat().st_size for file in files)
    return None
