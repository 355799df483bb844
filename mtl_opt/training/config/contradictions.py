"""Checks across keys: settings that contradict each other."""

from typing import Any

from mtl_opt.errors import InputError


def check_data(config: Any) -> None:
    """Check the keys of data and batches against each other."""
    given = [key for key in ("tasks", "dataset", "train_file") if getattr(config, key) is not None]
    if len(given) != 1:
        raise InputError(
            "Give one of `tasks` (name: {file, ...}), `dataset` (names in `dataset_dir`) and `train_file`, not both or "
            f"neither; got {' and '.join(f'`{key}`' for key in given) or 'none'}."
        )
    if config.eval_file is not None and config.train_file is None:
        raise InputError("`eval_file` goes with `train_file`; under `tasks` give every task its own `eval_file`.")
    if config.eval_dataset is not None and config.dataset is None:
        raise InputError("`eval_dataset` goes with `dataset`.")
    if config.streaming and config.max_steps < 1:
        raise InputError("`streaming` needs `max_steps`: a stream does not tell how many rows it has.")
    if config.streaming and config.val_from_train is not None:
        raise InputError("`val_from_train` holds rows out of a table; `streaming` reads rows on the way.")
    for key in ("deduplicate", "val_split_by"):
        if config.streaming and getattr(config, key) is not None:
            raise InputError(f"`{key}` compares all rows with each other; `streaming` reads rows on the way.")
    if config.tokens_per_batch is not None and config.gradient_engine == "two_pass":
        raise InputError("`tokens_per_batch` may divide a step, and `gradient_engine: two_pass` takes it whole.")
    if config.tokens_per_batch is not None and config.tokens_per_batch < config.cutoff_len:
        raise InputError(
            f"`tokens_per_batch` ({config.tokens_per_batch}) must be at least `cutoff_len` ({config.cutoff_len}): "
            "a row goes through the model whole."
        )


def check_model(config: Any) -> None:
    """Check the keys of model, precision and engine against each other."""
    if config.gradient_engine == "two_pass" and config.gradient_accumulation_steps > 1:
        raise InputError(
            "`gradient_engine: two_pass` takes one micro-batch per step, got `gradient_accumulation_steps: "
            f"{config.gradient_accumulation_steps}`; accumulate with `one_pass`, or take more `rows_per_task`."
        )
    if config.bf16 and config.fp16:
        raise InputError("`bf16` and `fp16` are both true; give one of them.")
    if config.quantization_bit is not None and config.finetuning_type != "lora":
        raise InputError(
            f"`quantization_bit: {config.quantization_bit}` goes with `finetuning_type: lora`, got "
            f"`{config.finetuning_type}`: quantised weights cannot be trained."
        )
    if config.create_new_adapter:
        raise InputError(
            "`create_new_adapter: true` would train an adapter of a base that is on no disk; write the merged model "
            "(`mtl-opt export`), and give its folder as `model_name_or_path`."
        )
    if config.adapter_name_or_path is not None and config.finetuning_type == "full":
        raise InputError(
            f"`adapter_name_or_path: {config.adapter_name_or_path}` goes with `finetuning_type: lora`, got `full`; to "
            "train a merged model further, give its folder (`mtl-opt export`) as `model_name_or_path`."
        )
    if config.sharing != "hard":
        _check_sharing(config)
    if config.torch_compile and config.gradient_engine not in {"auto", "per_task"}:
        raise InputError(
            f"`torch_compile: true` goes with `gradient_engine: per_task`, got `{config.gradient_engine}`: that engine "
            "replaces the forward of layers, which compiled code does not see."
        )


def check_output(config: Any) -> None:
    """Check the keys of evaluation against each other."""
    for key in ("early_stopping_patience", "load_best_model_at_end"):
        value = getattr(config, key)
        if value and config.eval_steps is None:
            shown = str(value).lower()
            raise InputError(f"`{key}: {shown}` looks at the evaluations during the run; give `eval_steps`.")
    if config.early_stopping_threshold and config.early_stopping_patience is None:
        raise InputError(
            f"`early_stopping_threshold: {config.early_stopping_threshold:g}` goes with `early_stopping_patience`."
        )


def _check_sharing(config: Any) -> None:
    """Refuse settings that private adapters cannot be trained with."""
    wanted = (("finetuning_type", "lora"), ("use_dora", False), ("fsdp", "none"), ("torch_compile", False))
    for key, value in wanted:
        if getattr(config, key) != value:
            raise InputError(
                f"`sharing: {config.sharing}` goes with `{key}: {str(value).lower()}`, got "
                f"`{str(getattr(config, key)).lower()}`."
            )
