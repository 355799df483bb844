"""Load a causal language model and its tokenizer by path or hub name, for full, LoRA or QLoRA fine-tuning."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from mtl_opt.errors import InputError, first_line
from mtl_opt.models.encoder_decoder import prepare_generation
from mtl_opt.models.heads.backbone import auto_class, kind_of_model, kind_of_text_model, put_heads, without_pooler
from mtl_opt.models.lora import LoraSettings, quiet_patterns, with_adapters
from mtl_opt.models.precision import QuantizationSettings, keep_weights, quantized
from mtl_opt.models.sharing.base import note_tokens
from mtl_opt.models.starting_adapter import UNREADABLE, check_base, read_adapter
from mtl_opt.results import HEADS_JSON

logger = logging.getLogger(__name__)


def load_tokenizer(name_or_path: str, *, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer.

    Args:
        name_or_path: Folder or hub name.
        trust_remote_code: Whether code that comes with the model may run.

    Returns:
        The tokenizer.

    Raises:
        InputError: If there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
    except UNREADABLE as error:
        raise InputError(_cannot_load("tokenizer", name_or_path, error)) from error


def load_model(
    name_or_path: str,
    *,
    lora: LoraSettings | None,
    dtype: torch.dtype = torch.float32,
    trained: str | Path | None = None,
    trust_remote_code: bool = False,
    quantization: QuantizationSettings | None = None,
    heads: Mapping[str, Mapping[str, Any] | None] | None = None,
) -> Any:
    """Load a causal language model, or with heads an encoder too, ready to be trained.

    Args:
        name_or_path: Folder or hub name of the base model.
        lora: Adapters to add; None trains every parameter of the model.
        dtype: Number format of the base model's weights; adapters are kept in float32.
        trained: Folder with adapters (or, without `lora`, a whole model) saved before, to go on from.
        trust_remote_code: Whether code that comes with the model may run.
        quantization: How the base's weights are stored; None as `dtype` says. Only with `lora`.
        heads: Per task `type` and options of its head, None for a task without one; no argument: no heads at all.

    Returns:
        The model: a `PeftModel` with `lora`; with `heads` a `MultiTaskModel` around it.

    An `InputError` says that the model, the saved part or a target layer does not exist, or cannot carry the heads.
    """
    source = name_or_path if lora is not None or trained is None else str(trained)
    shape: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code, "quantization": quantization}
    if trained is None and lora is not None and lora.start is not None:
        check_base(read_adapter(lora.start), lora.start, name_or_path)
    model = load_base(source, heads=heads is not None, **shape)
    note_tokens(model)
    if lora is not None:
        model = with_adapters(model, lora) if trained is None else _with_trained_adapters(model, Path(trained))
    if trained is None and lora is not None:
        trained = heads_to_start_from(lora.start, heads is not None)
    return model if heads is None else put_heads(model, heads, name_or_path, trained)


def load_base(
    name_or_path: str,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    quantization: QuantizationSettings | None = None,
    heads: bool = False,
) -> Any:
    """Load a causal language model, or for heads an encoder too, as it is, without adapters.

    Args:
        name_or_path: Folder or hub name.
        dtype: Number format of its weights.
        trust_remote_code: Whether code that comes with the model may run.
        quantization: How the weights are stored; None as `dtype` says.
        heads: Whether heads will be put on it.

    Returns:
        The model.

    Raises:
        InputError: If there is none, or heads cannot be put on it.
    """
    if (Path(name_or_path) / "adapter_config.json").exists():
        raise InputError(f"`model_name_or_path`: `{name_or_path}` holds an adapter; a whole model is needed.")
    storage = {} if quantization is None else quantized(quantization, dtype)
    try:
        remote = {"trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(name_or_path, **remote)
        kind = (kind_of_model if heads else kind_of_text_model)(config, name_or_path)
        model = auto_class(kind).from_pretrained(name_or_path, dtype=dtype, **remote, **storage)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(_cannot_load("model", name_or_path, error)) from error
    if kind == "encoder_decoder":
        prepare_generation(model, name_or_path)
    keep_weights(model)
    return without_pooler(model) if heads else model


def heads_to_start_from(start: str | None, wanted: bool) -> Path | None:
    """Find the heads beside an adapter to go on from, and say what of them is not used, or begins anew."""
    if start is None:
        return None
    there = (Path(start) / HEADS_JSON).exists()
    if there and not wanted:
        logger.warning("`adapter_name_or_path`: the heads in `%s` are not used: the run has no `heads`.", start)
    elif wanted and not there:
        logger.info("`adapter_name_or_path`: `%s` holds no heads; those of the run begin anew.", start)
    return Path(start) if there and wanted else None


def _with_trained_adapters(model: nn.Module, folder: Path) -> nn.Module:
    """Load saved adapters into the model, trainable."""
    try:
        if not (folder / "adapter_model.safetensors").exists():  # peft would look for it on the hub
            raise FileNotFoundError("there is no adapter_model.safetensors")
        with quiet_patterns():
            return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except UNREADABLE as error:
        raise InputError(f"No adapter could be loaded from `{folder}` ({first_line(error)}).") from error


def _cannot_load(what: str, name_or_path: str, error: Exception) -> str:
    """Format the sentence for a model or tokenizer that could not be loaded."""
    return f"`model_name_or_path`: no {what} could be loaded from `{name_or_path}` ({first_line(error)})."
