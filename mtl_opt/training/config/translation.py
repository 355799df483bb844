"""Translation of settings written for LLaMA-Factory, axolotl or Hugging Face, with notes on every change."""

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mtl_opt.data import registry_entries
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.training.config.foreign_keys import DEFAULTS, HARMLESS, NEUTRAL, REFUSED, RENAMED, TOKENIZER_TEMPLATES

MIX_STRATEGIES = {"concat": "repeat", "interleave_under": "stop_first", "interleave_over": "stop_all",
                  "interleave_once": "once"}  # fmt: skip
"""LLaMA-Factory's ways to mix, and what follows there once the rows of a data set are used up."""


def translate(settings: Mapping[str, Any], known: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Translate the keys of other tools, and drop those without meaning here; return settings and notes."""
    found = dict(settings)
    notes: list[str] = []
    for key in list(found):
        if key in RENAMED and key not in known:
            rename(found, key, RENAMED[key], notes)
    for change in (translate_split, translate_stage, translate_template, translate_warmup, translate_evaluation,
                   translate_saving, translate_files, translate_mixing, translate_sampling, translate_packing,
                   translate_adapter):  # fmt: skip
        change(found, known, notes)
    pass_or_refuse(found, known, notes)
    return found, notes


def rename(found: dict[str, Any], key: str, name: str, notes: list[str]) -> None:
    """Rename a key, and refuse two names of one key with different values."""
    value = found.pop(key)
    if value is None:
        return
    if name in found and found[name] != value:
        raise InputError(f"`{key}` is another name of `{name}`, and they differ: {value!r} and {found[name]!r}.")
    found[name] = value
    notes.append(f"`{key}` is read as `{name}`.")


def translate_split(found: dict[str, Any], _known: Collection[str], notes: list[str]) -> None:
    """Hold nothing out where `do_train` or `stage` show that the settings are those of LLaMA-Factory."""
    if not {"do_train", "stage"} & found.keys():
        return
    if found.get("tokenized_path"):
        notes.append(
            "`tokenized_path` keeps tokens, and the run goes on; LLaMA-Factory stops once it has written them."
        )
    if "val_size" in found or "val_from_train" in found:
        return
    found["val_size"] = 0.0
    if found.get("eval_dataset") is None:
        notes.append(
            "`val_size` is 0, as in LLaMA-Factory, whose keys `do_train` and `stage` these are: no rows are held out, "
            "and nothing is measured; `val_size: 0.1` holds a tenth out."
        )


def translate_stage(found: dict[str, Any], known: Collection[str], _notes: list[str]) -> None:
    """Take the stages `sft` and `pt`, and refuse others, and settings that only evaluate or predict."""
    stage, trains = found.pop("stage", None), found.pop("do_train", None)
    if stage not in {None, "sft", "pt"}:
        raise UnknownNameError("value of `stage`:", stage, ("sft", "pt"))
    if stage == "pt":
        found["text_blocks"] = True
    others = [key for key in ("do_predict", "do_eval") if found.pop(key, None)]
    if "do_train" not in known and not trains and others:
        raise InputError(
            f"`{others[0]}: true` without `do_train: true` trains nothing; `mtl-opt eval` measures a finished run, "
            "`mtl-opt generate` answers rows."
        )


def translate_template(found: dict[str, Any], _known: Collection[str], notes: list[str]) -> None:
    """Lead names of LLaMA-Factory's templates to the tokenizer's own chat template."""
    template = found.get("template")
    if template == "qwen3_nothink":  # the same texts under another name
        found["template"] = "chatml"
    elif isinstance(template, str) and template in TOKENIZER_TEMPLATES:
        found["template"] = "tokenizer"
        notes.append(f"`template: {template}` is read as `template: tokenizer`, the chat template of the model itself.")


def translate_warmup(found: dict[str, Any], known: Collection[str], notes: list[str]) -> None:
    """Read `warmup_ratio` as `warmup_steps` below 1."""
    if "warmup_ratio" not in found or "warmup_ratio" in known:
        return
    ratio = found.pop("warmup_ratio")
    if ratio in NEUTRAL:
        return
    if found.get("warmup_steps") not in NEUTRAL:
        notes.append("`warmup_ratio` gives way to `warmup_steps`.")
        return
    found["warmup_steps"] = ratio
    notes.append(f"`warmup_ratio: {ratio}` is read as `warmup_steps: {ratio}`, a share of all steps.")


def translate_evaluation(found: dict[str, Any], known: Collection[str], notes: list[str]) -> None:
    """Read `eval_strategy` as `eval_steps`."""
    if "eval_strategy" not in found or "eval_strategy" in known:
        return
    strategy = str(found.pop("eval_strategy")).lower()
    if strategy in {"no", "false", "none"}:  # YAML reads `no` as false
        found["eval_steps"] = None
    elif strategy == "steps":
        found.setdefault("eval_steps", found.get("logging_steps", 10))
    elif strategy == "epoch":
        found["eval_steps"] = per_epoch(found)
        notes.append(f"`eval_strategy: epoch` is read as `eval_steps: {found['eval_steps']}`.")
    else:
        raise UnknownNameError("value of `eval_strategy`:", strategy, ("no", "steps", "epoch"))


def translate_saving(found: dict[str, Any], known: Collection[str], notes: list[str]) -> None:
    """Read `save_strategy` as `save_steps`."""
    if "save_strategy" not in found or "save_strategy" in known:
        return
    strategy = str(found.pop("save_strategy")).lower()
    if strategy in {"no", "false", "none"}:
        found["save_steps"] = None
    elif strategy == "epoch":
        found["save_steps"] = per_epoch(found)
        notes.append(f"`save_strategy: epoch` is read as `save_steps: {found['save_steps']}`.")
    elif strategy == "best":
        if not found.get("load_best_model_at_end"):
            raise InputError("`save_strategy: best` goes with `load_best_model_at_end: true`, which saves those.")
        found["save_steps"] = None
        notes.append("`save_strategy: best` is read as `save_steps: null`: the best evaluations are saved anyway.")
    elif strategy != "steps":
        raise UnknownNameError("value of `save_strategy`:", strategy, ("no", "steps", "epoch", "best"))


def per_epoch(found: Mapping[str, Any]) -> float | None:
    """Compute the share of all steps in one epoch; None for a run of a single epoch."""
    try:
        epochs = float(found.get("num_train_epochs", 3))
    except (TypeError, ValueError):
        return None  # the check of `num_train_epochs` says what is wrong
    return round(1 / epochs, 6) if epochs > 1 else None


def translate_files(found: dict[str, Any], _known: Collection[str], notes: list[str]) -> None:
    """Read `data_files`, below `dataset_dir`, as `train_file`."""
    files = found.pop("data_files", None)
    if files is None:
        return
    if isinstance(files, dict):
        raise InputError("`data_files` takes files whose rows carry `task_name`; a mapping of files is `tasks`.")
    base = Path(str(found.pop("dataset_dir", None) or ""))
    paths = [str(base / str(name)) for name in split_names(files)]
    if found.get("train_file") not in (None, paths):
        raise InputError("`data_files` is another name of `train_file`; give one of them.")
    found["train_file"] = paths
    notes.append(f"`data_files` is read as `train_file`: {', '.join(paths)}.")


def translate_mixing(found: dict[str, Any], _known: Collection[str], notes: list[str]) -> None:
    """Read LLaMA-Factory's `mix_strategy` and `interleave_probs` as `mixing`, `ratios` and `exhaustion`."""
    strategy, probs = found.pop("mix_strategy", None), found.pop("interleave_probs", None)
    if strategy is not None and strategy not in MIX_STRATEGIES:
        raise UnknownNameError("value of `mix_strategy`:", strategy, MIX_STRATEGIES)
    if strategy is None and probs is None:
        return
    if "mixing" in found:
        raise InputError("`mix_strategy` and `interleave_probs` are read as `mixing`; give one or the other.")
    if probs is not None:
        names = split_names(found.get("dataset"))
        shares = split_names(probs)
        if len(names) != len(shares):
            raise InputError(f"`interleave_probs` has {len(shares)} shares for {len(names)} data sets in `dataset`.")
        found["mixing"] = "ratios"
        found.setdefault("ratios", task_ratios(found, names, shares))
    elif found.get("streaming"):  # a stream does not tell how many rows it has
        found["mixing"] = "equal"
    else:
        found["mixing"] = "proportional" if strategy == "concat" else "equal"
    found.setdefault("exhaustion", "repeat" if found.get("streaming") else MIX_STRATEGIES[strategy or "concat"])
    given = f"mix_strategy: {strategy or 'concat'}"
    also = " A stream does not tell how many rows it has, and starts again at its end." * bool(found.get("streaming"))
    notes.append(f"`{given}` is read as `mixing: {found['mixing']}`, `exhaustion: {found['exhaustion']}`.{also}")


def task_ratios(found: Mapping[str, Any], names: list[Any], shares: list[Any]) -> dict[str, Any]:
    """Assign the shares of data sets to their tasks, which entries of a registry may name."""
    tasks = [str(name) for name in names]
    with contextlib.suppress(InputError):  # raised again, with its place, when the rows are read
        tasks = [str(entry.train.task) for entry in registry_entries(str(found.get("dataset_dir") or "data"), tasks)]
    ratios: dict[str, Any] = {}
    for name, share in zip(tasks, shares, strict=True):
        try:
            ratios[name] = float(share) + ratios.get(name, 0.0)
        except (TypeError, ValueError):
            raise InputError(f"`interleave_probs` must be numbers, got {share!r}.") from None
    return ratios


def split_names(value: Any) -> list[Any]:
    """Split a comma-separated text into names; return lists as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def translate_sampling(found: dict[str, Any], known: Collection[str], _notes: list[str]) -> None:
    """Read Hugging Face's newer `train_sampling_strategy` as `group_by_length`."""
    if "train_sampling_strategy" not in found or "train_sampling_strategy" in known:
        return
    strategy = found.pop("train_sampling_strategy")
    if strategy == "group_by_length":
        found.setdefault("group_by_length", True)
    elif strategy not in {None, "random"}:
        raise UnknownNameError("value of `train_sampling_strategy`:", strategy, ("random", "group_by_length"))


def translate_adapter(found: dict[str, Any], known: Collection[str], _notes: list[str]) -> None:
    """Read axolotl's `adapter` and `lora_target_linear`."""
    adapter = found.pop("adapter", None)
    if adapter in {"lora", "qlora"}:
        found.setdefault("finetuning_type", "lora")
        if adapter == "qlora" and "quantization_bit" in known:
            found.setdefault("quantization_bit", 4)
    elif adapter not in NEUTRAL:
        raise UnknownNameError("value of `adapter`:", adapter, ("lora", "qlora"))
    if found.pop("lora_target_linear", None):
        found.setdefault("lora_target", "all")


def translate_packing(found: dict[str, Any], _known: Collection[str], notes: list[str]) -> None:
    """Read `neat_packing`, with which LLaMA-Factory's packed rows do not see each other, as ours never do."""
    neat = found.pop("neat_packing", None)
    if neat:
        found["packing"] = True
        notes.append("`neat_packing: true` is read as `packing: true`.")
    elif neat is not None and found.get("packing"):
        notes.append("`neat_packing: false` changes nothing: packed rows never see each other here.")


def asks(key: str, value: Any) -> bool:
    """Tell whether a value of a key of another tool asks for something."""
    return value is not None and value not in DEFAULTS.get(key, NEUTRAL)


def pass_or_refuse(found: dict[str, Any], known: Collection[str], notes: list[str]) -> None:
    """Refuse keys that would change what is trained or measured, and drop those that would not, with a note."""
    for key in [key for key in found if key not in known]:
        if key in REFUSED and asks(key, found[key]):
            raise InputError(f"`{key}: {written(found[key])}` cannot be had: {REFUSED[key]}.")
        if key in HARMLESS and asks(key, found[key]):
            notes.append(f"`{key}` is accepted and changes nothing: {HARMLESS[key]}.")
        if key in REFUSED or key in HARMLESS:
            del found[key]


def written(value: Any) -> str:
    """Write a value as YAML has it, in one line."""
    return str(value).lower() if isinstance(value, bool) else str(value)
