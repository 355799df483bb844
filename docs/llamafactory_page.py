"""The page on keys of LLaMA-Factory and TrainingArguments; `docs/build.py` writes it to `docs/llamafactory.md`."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from transformers import Seq2SeqTrainingArguments

from mtl_opt.errors import InputError
from mtl_opt.training import train_config
from mtl_opt.training.config.foreign_keys import HARMLESS, REFUSED, RENAMED, TOKENIZER_TEMPLATES, TRANSLATED
from mtl_opt.training.config.run_config import TrainConfig

OWN = (
    "model_name_or_path adapter_name_or_path create_new_adapter trust_remote_code quantization_bit "
    "quantization_method quantization_type double_quantization template dataset eval_dataset dataset_dir "
    "cutoff_len train_on_prompt mask_history streaming buffer_size overwrite_cache max_samples val_size packing "
    "tokenized_path enable_thinking finetuning_type lora_rank lora_alpha lora_dropout lora_target use_rslora "
    "use_dora plot_loss max_new_tokens early_stopping_patience "
)
"""Keys of LLaMA-Factory that are ours under the same name."""

INTRODUCTION = """\
# Keys of LLaMA-Factory and Hugging Face

Written by `python docs/build.py` from the tables by which settings are read; do not edit.

Every key of LLaMA-Factory's model, data, fine-tuning and generating arguments and of Hugging Face's `TrainingArguments`
is in one of four lists. A key that would change what is trained or measured is honoured or refused, never left out; a
refused key passes at the value at which it asks for nothing (`label_smoothing_factor: 0.0`, `use_muon: false`). Keys
stand in a YAML or on the command line, as `key=value` or `--key value`. Settings with `do_train` or `stage` are taken
to be LLaMA-Factory's: without `val_size` they hold no rows out.
"""

TRAIN: dict[str, Any] = {
    "model_name_or_path": "-", "output_dir": "-", "stage": "sft", "do_train": True, "finetuning_type": "lora",
    "dataset": "identity,alpaca_en_demo", "template": "qwen3_nothink", "warmup_ratio": 0.1, "bf16": True,
    "lr_scheduler_type": "cosine", "overwrite_output_dir": True, "preprocessing_num_workers": 16, "plot_loss": True,
}  # fmt: skip
"""What most examples have in common."""

DEEPSPEED = {"deepspeed": "examples/deepspeed/ds_z3_config.json"}
FULL = {"finetuning_type": "full", "pure_bf16": True}
KT = {"use_kt": True, "kt_optimize_rule": "-"}
V1 = {"stage": None, "do_train": None, "model_class": "llm", "kernel_config": {"name": "auto"}}
PICTURES = "refused: its data set `mllm_demo` has `images`, and only rows of text can be trained on"
QUANTISED = "settings are taken; the model is read by transformers and needs the package of its quantiser"
ANSWERS = "`mtl-opt generate RUN` answers from the folder of a run"
EXPORTS = "`mtl-opt export RUN` writes the merged model"

EXAMPLES: dict[str, dict[str, Any] | str] = {
    "train_lora/qwen3_lora_sft": {},
    "train_lora/qwen3_lora_sft_ds3": DEEPSPEED,
    "train_lora/qwen3_lora_sft_ray": {"ray_num_workers": 4},
    "train_lora/qwen3_lora_pretrain": {"stage": "pt", "template": None},
    "train_lora/qwen3_lora_reward": {"stage": "rm"},
    "train_lora/qwen3_lora_dpo": {"stage": "dpo", "pref_beta": 0.1, "pref_loss": "sigmoid"},
    "train_lora/qwen3_lora_kto": {"stage": "kto", "pref_beta": 0.1},
    "train_lora/qwen3_preprocess": {"tokenized_path": "-"},
    "train_lora/qwen3vl_lora_sft": PICTURES,
    "train_lora/qwen3vl_lora_dpo": {"stage": "dpo", "pref_beta": 0.1, "pref_loss": "sigmoid"},
    "train_lora/qwen3moe_lora_sft_kt": KT,
    "train_lora/deepseek2_lora_sft_kt": KT,
    "train_lora/deepseek3_lora_sft_kt": KT,
    "train_full/qwen3_full_sft": {"finetuning_type": "full", **DEEPSPEED},
    "train_full/qwen3vl_full_sft": {"finetuning_type": "full", **DEEPSPEED},
    "train_qlora/llama3_lora_sft_aqlm": QUANTISED,
    "train_qlora/llama3_lora_sft_awq": QUANTISED,
    "train_qlora/llama3_lora_sft_gptq": QUANTISED,
    "train_qlora/qwen3_lora_sft_bnb_npu": {"quantization_bit": 4, "double_quantization": False},
    "train_qlora/qwen3_lora_sft_otfq": {"quantization_bit": 4, "quantization_method": "bnb"},
    "merge_lora/qwen3_lora_sft": EXPORTS,
    "merge_lora/qwen3_full_sft": EXPORTS,
    "merge_lora/qwen3_gptq": "`mtl-opt export RUN --bits 4` quantises with bitsandbytes, not with GPTQ",
    "merge_lora/qwen3vl_lora_sft": "not available: models of text are trained and exported",
    "inference/qwen3": "not a run: plain transformers answers from a model that was not trained here",
    "inference/qwen3_full_sft": ANSWERS,
    "inference/qwen3_lora_sft": ANSWERS,
    "inference/qwen3vl": "not available: models of text are trained and exported",
    "extras/adam_mini/qwen2_full_sft": {"finetuning_type": "full", "use_adam_mini": True},
    "extras/apollo/llama3_full_sft": {"use_apollo": True, "apollo_rank": 256, **FULL},
    "extras/badam/llama3_full_sft": {"use_badam": True, "badam_mode": "layer", **FULL},
    "extras/dft/qwen2_full_sft": {"finetuning_type": "full", "use_dft_loss": True},
    "extras/eaft/qwen25_05b_eaft_full": {"finetuning_type": "full", "use_eaft_loss": True},
    "extras/fp8/llama3_fp8_deepspeed_sft": {"finetuning_type": "full", "fp8": True, **DEEPSPEED},
    "extras/fp8/llama3_fp8_fsdp_sft": {"finetuning_type": "full", "fp8": True, "fp8_backend": "torchao"},
    "extras/fsdp_qlora/llama3_lora_sft": {
        "quantization_bit": 4, "lora_target": "q_proj,v_proj", "fp16": True, "bf16": False, "val_size": 0.1,
        "eval_strategy": "steps", "eval_steps": 500,
    },
    "extras/galore/llama3_full_sft": {"use_galore": True, "galore_rank": 128, **FULL},
    "extras/llama_pro/llama3_freeze_sft": {"finetuning_type": "freeze", "use_llama_pro": True},
    "extras/loraplus/llama3_lora_sft": {"loraplus_lr_ratio": 16.0},
    "extras/mod/llama3_full_sft": {"mixture_of_depths": "convert", "optim": "paged_adamw_8bit", **FULL},
    "extras/muon/qwen2_full_sft": {"finetuning_type": "full", "use_muon": True},
    "extras/nlg_eval/llama3_lora_predict": {"do_train": None, "do_predict": True, "predict_with_generate": True},
    "extras/oft/llama3_oft_sft": {"finetuning_type": "oft", "oft_block_size": 32},
    "extras/oft/qwen2_5vl_oft_sft": {"finetuning_type": "oft", "oft_block_size": 32},
    "extras/pissa/llama3_lora_sft": {"pissa_init": True, "pissa_iter": 16, "pissa_convert": True},
    "extras/qoft/llama3_oft_sft_otfq": {"finetuning_type": "oft", "quantization_bit": 4},
    "ascend/qwen3_full_sft_fsdp2": {"finetuning_type": "full", "use_v1_kernels": True, "flash_attn": "fa2"},
    "ascend/qwen3_lora_sft_fsdp": {"use_v1_kernels": True, "flash_attn": "fa2"},
    "v1/train_lora/train_lora_sft": {**V1, "peft_config": {"name": "lora"}, "dist_config": {"name": "fsdp2"}},
    "v1/train_full/train_full_fsdp2": {**V1, "dist_config": {"name": "fsdp2"}},
    "v1/train_qlora/quantization": {**V1, "quant_config": {"name": "bnb", "quantization_bit": 4}},
}  # fmt: skip
"""The keys that decide over each example YAML of LLaMA-Factory beside those of `TRAIN`, or what serves instead."""


def keys_page() -> str:
    """Write the whole page.

    Returns:
        Markdown.
    """
    arguments = {spec.name for spec in fields(Seq2SeqTrainingArguments)} | set(OWN.split())
    same = [spec.name for spec in fields(TrainConfig) if spec.name in arguments]
    parts = [
        INTRODUCTION,
        "## Honoured\nThe same name here, described by `mtl-opt train --help`:\n" + ", ".join(map(code, same)) + ".\n",
        "## Translated\n" + table(("key", "is read as"), translated()),
        "## Refused\n" + table(("keys", "why, or what to use"), grouped(REFUSED)),
        "## Harmless\nAccepted with a note: nothing that is trained or measured changes.\n\n"
        + table(("keys", "why"), grouped(HARMLESS)),
        "## Templates\nThese names of LLaMA-Factory's templates are read as `template: tokenizer`, the chat template "
        "of the model itself: " + ", ".join(map(code, TOKENIZER_TEMPLATES)) + ".\n",
        "## Example YAMLs\nWhat `mtl-opt train` does with the settings of LLaMA-Factory's examples:\n\n"
        + table(("example", "here"), ((code(path), verdict(what)) for path, what in EXAMPLES.items())),
    ]
    return "\n".join(parts)


def translated() -> list[tuple[str, str]]:
    """Give each translated key and what it becomes."""
    found = {key: code(name) for key, name in RENAMED.items()} | TRANSLATED
    return [(code(key), text) for key, text in sorted(found.items())]


def grouped(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Collect the keys that share a reason."""
    keys: dict[str, list[str]] = {}
    for key, why in reasons.items():
        keys.setdefault(why, []).append(code(key))
    return [(", ".join(names), why) for why, names in keys.items()]


def verdict(what: dict[str, Any] | str) -> str:
    """Say what happens to an example: tried with its deciding keys, or what serves instead."""
    if isinstance(what, str):
        return what
    try:
        train_config({key: value for key, value in {**TRAIN, **what}.items() if value is not None})
    except InputError as error:
        return f"refused: {error}"
    return "runs"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table."""
    lines = [list(heads), ["---", "---"], *map(list, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def code(name: str) -> str:
    """Write a name as code."""
    return f"`{name}`"
