"""An adapter that training goes on from decides rank, scale and layers; a key that says otherwise is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError
from mtl_opt.models import read_about, read_adapter
from mtl_opt.results import SHARING_JSON

SHAPE = ("lora_rank", "lora_alpha", "lora_target", "use_rslora", "use_dora")
"""Keys that an adapter decides; a configuration that has all of them was written by a run, and read before."""


def with_shape_of_adapter(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the shape of the adapter that training goes on from."""
    where = settings.get("adapter_name_or_path")
    if not isinstance(where, str) or settings.get("finetuning_type") == "full" or set(SHAPE) <= set(settings):
        return dict(settings)
    known = shape_of(where, settings.get("sharing", "hard"))
    for key, value in known.items():
        given = settings.get(key)
        if given is not None and not _agrees(key, given, value):
            raise InputError(
                f"`{key}: {given}` contradicts `adapter_name_or_path: {where}`, which has {value}; leave `{key}` out."
            )
    return {**known, **{key: value for key, value in settings.items() if value is not None or key not in known}}


def shape_of(where: str, sharing: str) -> dict[str, Any]:
    """Read the shape of a saved adapter: of peft for `sharing: hard`, else of the same way of sharing."""
    folder = Path(where)
    if sharing != "hard":
        if not (folder / SHARING_JSON).exists():
            raise InputError(
                f"`adapter_name_or_path`: `{where}` holds no run with `sharing: {sharing}` ({SHARING_JSON} is "
                "missing); an adapter of peft goes with `sharing: hard`."
            )
        about = read_about(folder)
        return {key: about[key] for key in ("lora_rank", "lora_alpha") if key in about}
    if (folder / SHARING_JSON).exists() and not (folder / "adapter_config.json").exists():
        raise InputError(
            f"`adapter_name_or_path`: `{where}` was saved with `sharing: {read_about(folder).get('sharing')}`, not "
            "`hard`; a folder below its `adapters/` holds one task's adapter."
        )
    config = read_adapter(where)
    target = config.target_modules
    targets = [target] if isinstance(target, str) else sorted(target or ())
    return {
        "lora_rank": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_target": targets,
        "lora_dropout": config.lora_dropout,
        "use_rslora": bool(config.use_rslora),
        "use_dora": bool(config.use_dora),
    }


def _agrees(key: str, given: Any, known: Any) -> bool:
    """Return whether a key that is given says what the adapter has, or may be decided without it."""
    if key == "lora_dropout":
        return True
    if key != "lora_target":
        return str(given) == str(known)
    names = [part.strip() for part in given.split(",")] if isinstance(given, str) else list(given)
    # Whether an adapter has `all` layers shows with the model.
    return names == ["all"] or sorted(map(str, names)) == known or [given] == known
