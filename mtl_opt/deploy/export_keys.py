"""The keys `export_*` of LLaMA-Factory, beside a run or in its YAML: honoured or refused, never passed over."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtl_opt.checks import flag, one_of, text, whole
from mtl_opt.deploy.export_folders import ExportOptions
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.training.config.yaml_file import override, read_yaml

PREFIX = "export_"

REFUSED = {
    "export_quantization_dataset": "bitsandbytes quantises without calibration rows",
    "export_quantization_nsamples": "bitsandbytes quantises without calibration rows",
    "export_quantization_maxlen": "bitsandbytes quantises without calibration rows",
    "export_hub_model_id": "nothing is uploaded; upload the folder with `hf upload`",
}
"""Keys with which another export would be meant, and why it cannot be had."""

KNOWN = ("export_dir", "export_size", "export_device", "export_quantization_bit", "export_legacy_format")


def split_export_keys(where: str | Path, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split what is asked of the export from the arguments that are settings of the run; a YAML may ask, too."""
    settings = read_yaml(where, overrides) if Path(where).is_file() else override({}, overrides)
    asked = {key: value for key, value in settings.items() if key.startswith(PREFIX) and value is not None}
    for key, value in asked.items():
        if key in REFUSED:
            raise InputError(f"`{key}: {value}` cannot be had: {REFUSED[key]}.")
        if key not in KNOWN:
            raise UnknownNameError("key of the export", key, (*KNOWN, *REFUSED))
    return asked, [one for one in overrides if not one.startswith(PREFIX)]


def with_export_keys(options: ExportOptions, asked: dict[str, Any]) -> ExportOptions:
    """Put the keys of an export into its options; an option that is given, too, must say the same."""
    if str(asked.get("export_device", "cpu")) not in {"cpu", "auto"}:
        raise InputError(
            f"`export_device` must be cpu or auto: models are merged on the CPU; got {asked['export_device']}."
        )
    if flag("export_legacy_format", asked.get("export_legacy_format", False)):
        raise InputError("`export_legacy_format: true` cannot be had: weights are written as safetensors.")
    found: dict[str, Any] = {}
    if "export_dir" in asked:
        found["folder"] = text("export_dir", asked["export_dir"])
    if "export_size" in asked:
        found["shard_size"] = f"{whole(1)('export_size', asked['export_size'])}GB"
    if "export_quantization_bit" in asked:
        found["bits"] = one_of(4, 8)("export_quantization_bit", asked["export_quantization_bit"])
    for name, value in found.items():
        given = getattr(options, name)
        if given not in (None, ExportOptions.shard_size, value):
            raise InputError(
                f"The export is asked for {given} and, by a key `export_*`, for {value}; give one of them."
            )
    return ExportOptions(**{**vars(options), **found})
