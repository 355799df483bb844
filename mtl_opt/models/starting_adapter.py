"""A peft adapter that training goes on from: its shape, the base it belongs to, and its weights."""

import filecmp
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from torch import nn
from transformers.pytorch_utils import Conv1D

from mtl_opt.errors import InputError, first_line

UNREADABLE = (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, SafetensorError)
"""What loading a missing, torn or unsupported model, adapter or tokenizer raises."""

KEY = "adapter_name_or_path"

NOT_LEARNT_ON = (
    "modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication", "lora_bias",
    "alora_invocation_tokens", "use_qalora", "megatron_config",
)  # fmt: skip
"""Options of peft's LoRA with parts that neither export nor the adapters per task would keep."""


def read_adapter(where: str) -> LoraConfig:
    """Read the configuration of a LoRA adapter.

    Args:
        where: Folder, or name on the hub.

    Returns:
        The configuration, ready to be trained on.

    Raises:
        InputError: If there is no adapter, or one of another kind.
    """
    if not Path(where).is_dir() and (Path(where).exists() or where.count("/") != 1 or where.startswith((".", "~"))):
        raise InputError(f"`{KEY}`: there is no folder `{where}`.")
    try:
        config = PeftConfig.from_pretrained(where)
    except UNREADABLE as error:
        raise InputError(f"`{KEY}`: `{where}` holds no adapter of peft ({first_line(error)}).") from error
    if not isinstance(config, LoraConfig) or str(config.peft_type.value) != "LORA":
        raise InputError(
            f"`{KEY}`: `{where}` is an adapter of the kind {config.peft_type.value}, and only LORA goes on."
        )
    other = [name for name in NOT_LEARNT_ON if getattr(config, name, None)]
    if other or config.bias != "none":
        shown = f"{other[0]}: {getattr(config, other[0])}" if other else f"bias: {config.bias}"
        raise InputError(f"`{KEY}`: `{where}` has `{shown}`, which is no low-rank product; it cannot go on here.")
    config.inference_mode = False
    return config


def check_base(config: LoraConfig, where: str, name_or_path: str) -> None:
    """Refuse an adapter that was trained on another base, as far as names and files tell."""
    known = config.base_model_name_or_path
    if not known or known == name_or_path:
        return
    old, new = Path(known), Path(name_or_path)
    if old.is_dir() and new.is_dir():
        if old.resolve() == new.resolve() or _same_weights(old, new):
            return
    elif old.name == new.name:  # moved, or on the hub by one name and here by another
        return
    raise InputError(
        f"`{KEY}`: `{where}` was trained on `{known}`, not on `{name_or_path}`; where that is the same model, write "
        "its name as `base_model_name_or_path` into `adapter_config.json`."
    )


def _same_weights(old: Path, new: Path) -> bool:
    """Return whether two folders hold the same weights, byte by byte."""
    names = [sorted(path.name for path in folder.glob("*.safetensors")) for folder in (old, new)]
    return bool(names[0]) and names[0] == names[1] and not any(filecmp.cmpfiles(old, new, names[0], shallow=False)[1:])


def put_adapter(model: nn.Module, where: str, dropout: float, every_layer: bool, weights: bool = True) -> Any:
    """Put a saved adapter into a model, trainable; with `every_layer` refuse one that leaves linear layers out."""
    config = read_adapter(where)
    config.lora_dropout = dropout
    config.base_model_name_or_path = None  # peft writes that of the model in
    try:
        found = get_peft_model(model, config)
        if weights:
            result: Any = set_peft_model_state_dict(found, load_peft_weights(where, device="cpu"))
            wrong = [*result.unexpected_keys, *(key for key in result.missing_keys if "lora_" in key)]
            if wrong:
                raise InputError(f"`{KEY}`: `{where}` does not fit the model: `{wrong[0]}` is missing on one side.")
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"`{KEY}`: `{where}` does not fit the model ({first_line(error)}).") from error
    if every_layer:
        _refuse_gaps(found, where)
    return found


def _refuse_gaps(model: Any, where: str) -> None:
    """Refuse an adapter of some layers where `lora_target: all` asks for every one."""
    base = model.get_base_model()
    output = base.get_output_embeddings()
    paths = [
        (path, module)
        for path, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D | LoraLayer) and ".base_layer" not in path and ".lora_" not in path
    ]
    left_out = [path for path, module in paths if not isinstance(module, LoraLayer) and module is not output]
    if left_out:
        raise InputError(
            f"`lora_target: all` contradicts `{KEY}`: `{where}` has no adapter at `{left_out[0]}`; leave `lora_target` "
            "out, and the layers of the adapter are taken."
        )
