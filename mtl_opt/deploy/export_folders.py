"""From a trained run to plain folders of transformers or peft, one per task, written completely or not at all."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from tqdm import tqdm
from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from mtl_opt.checks import one_of
from mtl_opt.data.text.answer_frame import exported_template
from mtl_opt.deploy.export_check import SameAnswers, exact
from mtl_opt.deploy.quantized_export import Difference, KeptOutputs, held_out_rows, write_quantized
from mtl_opt.deploy.trained_run import TrainedRun, open_trained
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.models import (
    MultiTaskModel,
    TaskProducts,
    folder_names,
    load_base,
    merge,
    quiet_patterns,
    reads,
    save_head,
)
from mtl_opt.results import HEADS_JSON, HEADS_SAFETENSORS, write_json
from mtl_opt.training.run.adapters import hard_products, task_products, write_adapters
from mtl_opt.training.setup.model_settings import base_dtype, quantization_settings

logger = logging.getLogger(__name__)

EXPORT_JSON = "export.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")

Written = tuple[dict[str, str], dict[str, Difference]]
"""Folder of every task, and how far its quantised model is from the run; empty where nothing is quantised."""


@dataclass(frozen=True)
class ExportOptions:
    """What `export` writes, and where.

    Attributes:
        folder: A new folder; None for `exported` in the run's folder.
        tasks: Names of the tasks to write; None for all.
        adapter: Whether peft folders are written instead of merged models.
        dtype: "float32", "bfloat16" or "float16"; None for the dtype of the base in training.
        dequantize: Whether a 4-bit base is written out in full and adapters merged into that.
        shard_size: Largest size of a file, such as "5GB".
        bits: 4 or 8: merged models are quantised by bitsandbytes, and their outputs compared with those of the run.
    """

    folder: str | None = None
    tasks: tuple[str, ...] | None = None
    adapter: bool = False
    dtype: str | None = None
    dequantize: bool = False
    shard_size: str = "5GB"
    bits: int | None = None


def export(where: str | Path, options: ExportOptions | None = None, overrides: Sequence[str] = ()) -> dict[str, Path]:
    """Write a trained run as plain models of transformers, or as peft folders.

    Everything is written or nothing: a merged model that answers otherwise than the run stops the export.

    Args:
        where: Folder of a run or checkpoint, or the YAML of a run.
        options: What to write; default merged models of all tasks.
        overrides: Settings of the run that win, as `key=value`, such as a model that has moved.

    Returns:
        Folder of every task; the same for all where nothing belongs to one task.

    Raises:
        InputError: If there is no finished run, the folder is taken or cannot be written, or merging is impossible.
    """
    options = options or ExportOptions()
    trained = open_trained(where, overrides)
    names = check_tasks(options.tasks, trained.tasks)
    target = Path(options.folder) if options.folder else trained.folder / "exported"
    _check_target(target)
    _check_base(trained, options)
    write = _adapters if options.adapter else _merged
    partial = target.absolute().with_name(f"{target.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        folders, differences = write(trained, options, names, partial)
        write_json(partial / EXPORT_JSON, _about(trained, options, folders, differences))
        if target.exists():
            target.rmdir()  # empty
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f"`export_dir`: `{target}` cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {task: target / name for task, name in folders.items()}


def check_tasks(wanted: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Return the wanted tasks in the order of the run, and refuse those it does not have."""
    for task in wanted or ():
        if task not in known:
            raise UnknownNameError("task", task, known)
    return [task for task in known if wanted is None or task in wanted]


def _check_target(target: Path) -> None:
    """Refuse a folder that is not empty, and a file."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "is not empty" if target.is_dir() else "is a file"
        raise InputError(f"`export_dir`: `{target}` {what}; choose a new folder.")


def _check_base(trained: TrainedRun, options: ExportOptions) -> None:
    """Refuse a merge that would give another model than the one trained, or warn of it where it was asked for."""
    bit = trained.config.quantization_bit
    if options.dtype is not None and options.dtype not in DTYPES:
        raise UnknownNameError("value of `--dtype`:", options.dtype, DTYPES)
    if options.bits is not None:
        one_of(4, 8)("--bits", options.bits)
        if options.adapter:
            raise InputError(f"`--bits {options.bits}` quantises merged models, and `--adapter` merges nothing.")
    if options.adapter and trained.config.finetuning_type == "full":
        raise InputError("`--adapter`: the run trained the whole model (`finetuning_type: full`) and has no adapter.")
    if trained.bit is not None and bit is None and not options.adapter:
        logger.warning(
            "The adapters were trained on a %d-bit base and are merged into the unquantised one: the result is another "
            "model than the one that was measured.", trained.bit,
        )  # fmt: skip
    if options.dequantize and bit != 4:
        raise InputError(f"`--dequantize` writes a 4-bit base out in full; this run has `quantization_bit: {bit}`.")
    if bit is None or options.adapter or options.dequantize:
        return
    full = "`--dequantize` merges into the 4-bit base written out in full, " if bit == 4 else ""
    raise InputError(
        f"`quantization_bit: {bit}`: adapters cannot be merged into a {bit}-bit base, whose coarse numbers would round "
        f"them away; {full}`--adapter` writes peft folders for the {bit}-bit base, and `quantization_bit=null` merges "
        "into the unquantised base, which is another model than the one trained."
    )


def _about(
    trained: TrainedRun, options: ExportOptions, folders: dict[str, str], differences: dict[str, Difference]
) -> dict[str, Any]:
    """Describe an export for `export.json`."""
    quantized = {"bits": options.bits, "difference": {task: asdict(one) for task, one in differences.items()}}
    return {
        **(quantized if options.bits else {}),
        "form": "adapter" if options.adapter else "merged",
        "tasks": folders,
        "sharing": trained.config.sharing,
        "base_model_name_or_path": trained.config.model_name_or_path,
        "run": str(trained.folder),
        "config": asdict(trained.config),
    }


def _adapters(trained: TrainedRun, options: ExportOptions, names: list[str], folder: Path) -> Written:  # noqa: ARG001 - as `_merged`
    """Write peft folders."""
    tokenizer, heads = trained.tokenizer(), trained.heads() or {}
    if trained.config.sharing == "hard" and not any((heads.get(task) or {}).get("rank") for task in names):
        for file in PEFT_FILES:
            shutil.copyfile(trained.folder / file, folder / file)
        _write_tokenizer(trained, names, tokenizer, folder)
        _copy_heads(trained, folder)
        return dict.fromkeys(names, "."), {}
    model = trained.model()
    products = _products(trained, model, for_peft=True)
    folders = write_adapters(folder, products, model, trained.config.model_name_or_path, names)
    heads = {task: model.head_of(task) for task in names} if isinstance(model, MultiTaskModel) else {}
    for task, name in folders.items():
        _write_tokenizer(trained, [task], tokenizer, folder / name)
        _write_head(heads, task, folder / name)
    return folders, {}


def _merged(trained: TrainedRun, options: ExportOptions, names: list[str], folder: Path) -> Written:
    """Write merged models: one for all tasks where nothing merged belongs to one task, else one per task."""
    dtype = DTYPES[options.dtype] if options.dtype else base_dtype(trained.config)
    tokenizer, whole = trained.tokenizer(), exact(trained.model())
    products = _products(trained, whole, for_peft=False)
    together = trained.config.sharing == "hard" and not any(products[task].head for task in names)
    wanted = {task: SameAnswers(whole, index) for index, task in enumerate(trained.tasks) if task in names}
    kept = _kept_outputs(trained, options, whole, names)
    heads = {task: whole.head_of(task) for task in names} if isinstance(whole, MultiTaskModel) else {}
    del whole  # one model in memory at a time
    folders = dict.fromkeys(names, ".") if together else _own_folders(trained, names)
    differences: dict[str, Difference] = {}
    for task in tqdm(names[:1] if together else names, desc="exporting", leave=False, disable=None):
        model = merge(_start(trained, options), products[task], torch.float32)
        for name in names if together else [task]:
            wanted[name].check(model)
        if options.bits is None:
            _write_plain(model.to(dtype), folder / folders[task], options)
        else:
            model = write_quantized(model, trained, options.bits, dtype, folder / folders[task], options.shard_size)
            differences |= {one: kept[one].difference(model) for one in (names if together else [task])}
        _write_tokenizer(trained, names if together else [task], tokenizer, folder / folders[task])
        if not together:
            _write_head(heads, task, folder / folders[task])
    if together:
        _copy_heads(trained, folder)
    for task, difference in differences.items():
        logger.info(difference.sentence(task, options.bits or 0))
    return folders, differences


def _kept_outputs(trained: TrainedRun, options: ExportOptions, whole: Any, names: list[str]) -> dict[str, KeptOutputs]:
    """Keep what the run gives for held-out rows, where a quantised model will be compared with it."""
    if options.bits is None:
        return {}
    rows = held_out_rows(trained)
    return {task: KeptOutputs(whole, trained.tasks.index(task), rows.get(task)) for task in names}


def _own_folders(trained: TrainedRun, names: list[str]) -> dict[str, str]:
    """Return the folder name of every task that is written."""
    return {task: name for task, name in folder_names(trained.tasks).items() if task in names}


def _start(trained: TrainedRun, options: ExportOptions) -> Any:
    """Load what the products of a task are merged into; with `sharing: hard` it includes what all tasks share."""
    if trained.config.sharing != "hard":
        return _base(trained, options)
    full = trained.config.finetuning_type == "full"
    return _without_heads(trained.model()) if full else _peft_merged(trained, options)


def _without_heads(model: Any) -> Any:
    """Return the model below the heads."""
    return model.base if isinstance(model, MultiTaskModel) else model


def _write_head(heads: Mapping[str, Any], task: str, folder: Path) -> None:
    """Write the head of a task beside the model, unless it answers in text and is merged into the model."""
    if task in heads and heads[task].reads != "text":
        save_head(task, heads[task], folder)


def _copy_heads(trained: TrainedRun, folder: Path) -> None:
    """Copy the heads of a run, where it has any, beside the model."""
    for file in (HEADS_JSON, HEADS_SAFETENSORS):
        if (trained.folder / file).exists():
            shutil.copyfile(trained.folder / file, folder / file)


def lies_beside(task: str, folder: Path) -> bool:
    """Return whether an export of an earlier version keeps a task's part of the output layer in `heads.json`."""
    path = folder / HEADS_JSON
    about = json.loads(path.read_text(encoding="utf-8"))["tasks"] if path.exists() else {}
    return bool(about.get(task, {}).get("rank"))


def _products(trained: TrainedRun, model: Any, for_peft: bool) -> dict[str, TaskProducts]:
    """Reduce every task to its products, or raise why that cannot be."""
    hard = trained.config.sharing == "hard"
    found = hard_products(model, trained.tasks, for_peft) if hard else task_products(model, for_peft)
    if not isinstance(found, str):
        return found
    way = "`--adapter` cannot write peft folders" if for_peft else "there is no plain model to export"
    raise InputError(
        f"`sharing: {trained.config.sharing}`: {way}, since {found}; `mtl-opt generate` runs it from its own files."
    )


def _base(trained: TrainedRun, options: ExportOptions) -> Any:
    """Load the base that adapters are merged into; with `dequantize` a 4-bit one in full."""
    config = trained.config
    settings = quantization_settings(config) if options.dequantize else None
    base = load_base(
        config.model_name_or_path,
        dtype=base_dtype(config),
        trust_remote_code=config.trust_remote_code,
        quantization=settings,
        heads=trained.heads() is not None,
    )
    return base.dequantize() if options.dequantize else base


def _peft_merged(trained: TrainedRun, options: ExportOptions) -> Any:
    """Merge the one adapter of hard sharing, with sums in float32."""
    with quiet_patterns():
        model = PeftModel.from_pretrained(_base(trained, options).float(), str(trained.folder))
    base = model.get_base_model()
    output = getattr(base.get_output_embeddings(), "base_layer", None)  # an encoder has none
    if output is not None and output.weight is base.get_input_embeddings().weight:
        output.weight = nn.Parameter(output.weight.detach().clone())  # the embedding has no adapter
        base.config.tie_word_embeddings = False
    return model.merge_and_unload()


def _write_plain(model: Any, folder: Path, options: ExportOptions) -> None:
    """Write a model as transformers does."""
    try:
        model.save_pretrained(folder, max_shard_size=options.shard_size)
    except ValueError as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"The model cannot be saved by transformers ({reason}).") from error


def _write_tokenizer(trained: TrainedRun, tasks: Sequence[str], tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer with the prompt of the training, and `generation_config.json` with what ends an answer."""
    kinds = {task: (trained.config.heads or {}).get(task, {}).get("type") for task in tasks}
    encoders = [
        trained.encoder(task, tokenizer) for task, kind in kinds.items() if kind is None or reads(kind) == "text"
    ]
    chat = next((encoder for encoder in encoders if encoder.template.joined), None)
    source = tokenizer.chat_template
    if chat is not None:
        tokenizer.chat_template = exported_template(source, chat.frame)
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template = source
    if encoders:
        _write_ends(trained, [end for encoder in encoders for end in encoder.frame.ends], tokenizer, folder)


def _write_ends(trained: TrainedRun, ends: Sequence[int], tokenizer: Any, folder: Path) -> None:
    """Write what ends an answer into `generation_config.json`, where `generate` of transformers looks for it."""
    given = folder if (folder / GENERATION_CONFIG_NAME).exists() else trained.config.model_name_or_path
    try:
        settings = GenerationConfig.from_pretrained(str(given))
    except OSError:  # the base has none
        settings = GenerationConfig()
    ends = list(dict.fromkeys(ends))
    settings.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
    settings.pad_token_id = tokenizer.pad_token_id
    settings.save_pretrained(folder)
