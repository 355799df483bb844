"""Translation of settings written for LLaMA-Factory, axolotl or Hugging Face, with notes on every change."""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any

from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.training.config.foreign_keys import DONE_ANYWAY, LLAMA_FACTORY, REFUSED, REMOVED, RENAMED

NEUTRAL: tuple[Any, ...] = (None, False, 0, "", "none", "no", "auto", "default", [], {})
"""Values with which a key asks for nothing."""

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
    for change in (translate_stage, translate_warmup, translate_evaluation, translate_saving, translate_mixing,
                   translate_sampling, translate_adapter):  # fmt: skip
        change(found, known, notes)
    without = [key for key in found if key in DONE_ANYWAY and key not in known]
    asked = [key for key in without if found.pop(key) not in NEUTRAL]
    notes += [f"`{key}` is accepted and changes nothing: {DONE_ANYWAY[key]}." for key in asked]
    drop_unavailable(found, known, notes)
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


def translate_stage(found: dict[str, Any], _known: Collection[str], _notes: list[str]) -> None:
    """Refuse stages other than `sft` and `pt`, which both learn plain text here."""
    stage = found.get("stage", "sft")
    if stage not in {"sft", "pt"}:
        raise UnknownNameError("value of `stage`:", stage, ("sft", "pt"))
    template = found.get("template")
    if template == "qwen3_nothink":  # the same texts under another name
        found["template"] = "chatml"


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


def translate_mixing(found: dict[str, Any], _known: Collection[str], notes: list[str]) -> None:
    """Read LLaMA-Factory's `mix_strategy` and `interleave_probs` as `mixing`, `ratios` and `exhaustion`."""
    strategy, probs = found.pop("mix_strategy", None), found.pop("interleave_probs", None)
    if strategy is not None and strategy not in MIX_STRATEGIES:
        raise UnknownNameError("value of `mix_strategy`:", strategy, MIX_STRATEGIES)
    if (strategy is None and probs is None) or "mixing" in found:
        return
    if probs is not None:
        names = split_names(found.get("dataset"))
        shares = split_names(probs)
        if len(names) != len(shares):
            raise InputError(f"`interleave_probs` has {len(shares)} shares for {len(names)} data sets in `dataset`.")
        found["mixing"] = "ratios"
        found.setdefault("ratios", dict(zip(names, shares, strict=True)))
    else:
        found["mixing"] = "proportional" if strategy == "concat" else "equal"
    found.setdefault("exhaustion", MIX_STRATEGIES[strategy or "concat"])
    given = f"mix_strategy: {strategy or 'concat'}"
    notes.append(f"`{given}` is read as `mixing: {found['mixing']}`, `exhaustion: {found['exhaustion']}`.")


def split_names(value: Any) -> list[Any]:
    """Split a comma-separated text into names; return lists as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def translate_sampling(found: dict[str, Any], known: Collection[str], notes: list[str]) -> None:
    """Read Hugging Face's newer `train_sampling_strategy` as `group_by_length`."""
    if "train_sampling_strategy" not in found or "train_sampling_strategy" in known:
        return
    strategy = found.pop("train_sampling_strategy")
    if strategy == "group_by_length":
        found.setdefault("group_by_length", True)
    elif strategy != "random":
        notes.append(f"`train_sampling_strategy: {strategy}` is not available and has no effect.")


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


def drop_unavailable(found: dict[str, Any], known: Collection[str], notes: list[str]) -> None:
    """Drop keys of LLaMA-Factory and TrainingArguments that have no effect here, with a note where they ask for one."""
    strange = [key for key in found if key not in known]
    if not strange:
        return
    from transformers import TrainingArguments  # a second of import that our own YAMLs do not need

    defaults = {f.name: None if f.default is MISSING else f.default for f in fields(TrainingArguments)}
    defaults |= dict.fromkeys((*LLAMA_FACTORY, *REMOVED))
    for key in strange:
        if key in defaults:
            value = found.pop(key)
            if key in REFUSED and value not in NEUTRAL:
                raise InputError(f"`{key}: {value}` cannot be had: {REFUSED[key]}.")
            if value not in NEUTRAL and value != defaults[key]:
                notes.append(f"`{key}: {value}` is not available and has no effect.")
