"""Settings that all runs of a table must share, checked before anything is trained."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtl_opt.comparison.grid import GridRun
from mtl_opt.errors import InputError
from mtl_opt.training.config.comparison_keys import CompareConfig
from mtl_opt.training.run.checkpoint import FREE_KEYS

CHANGE_NOTHING = FREE_KEYS - {"max_new_tokens"}
"""Keys that change no number of the tables."""

OF_A_SEED = {"seed", "data_seed", "output_dir"}
"""Keys that differ between the seeds of one method."""

OF_ALL = (
    "adapter_name_or_path",
    "model_name_or_path", "heads", "finetuning_type", "lora_rank", "lora_alpha", "lora_dropout", "lora_target",
    "use_rslora", "use_dora", "quantization_bit", "quantization_method", "quantization_type", "double_quantization",
    "template", "task_prefix", "mask_history", "train_on_prompt", "cutoff_len", "truncation", "rows_per_task",
    "per_device_train_batch_size", "gradient_accumulation_steps", "tasks_per_step", "exhaustion", "optim",
    "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "lr_scheduler_type",
    "warmup_steps", "max_steps", "num_train_epochs", "bf16", "fp16", "max_new_tokens", "early_stopping_patience",
    "early_stopping_threshold", "metric_for_best_model", "load_best_model_at_end",
)  # fmt: skip
"""Keys that no axis of a grid varies: the same for all methods of a table, except for `own_keys`."""


def own_keys(config: CompareConfig) -> frozenset[str]:
    """List the keys in which every method may differ: a rate that is searched, steps that follow from a time."""
    searched = {"learning_rate"} if len(config.learning_rates or []) > 1 else set()
    timed = {"max_steps"} if config.budget is not None and config.budget.endswith("seconds") else set()
    return frozenset(searched | timed)


def refuse_other_settings(
    folder: Path | str,
    runs: Sequence[GridRun],
    known: Mapping[str, Mapping[str, Any]],
    data_hash: str | None,
    own: Collection[str],
) -> None:
    """Refuse to put runs with different settings or data into one table."""
    for run in runs:
        wanted = asdict(run.config)
        for name, line in known.items():
            there = line.get("config") or {}
            for key in compared_keys(run, line, wanted, own):
                if key in there and there[key] != wanted[key]:
                    raise InputError(
                        f"`{folder}` holds results with `{key}` = {there[key]!r} (`{name}`), for `{run.name}` it is "
                        f"{wanted[key]!r}: runs with different settings cannot share a table; choose another "
                        "`output_dir`."
                    )
    for name, line in known.items():
        known_hash = (line.get("provenance") or {}).get("data_hash")
        if runs and data_hash is not None and known_hash is not None and known_hash != data_hash:
            raise InputError(
                f"`{folder}` holds results on other data: the rows behind `{name}` have changed since; choose another "
                "`output_dir`."
            )


def compared_keys(run: GridRun, line: Mapping[str, Any], wanted: Mapping[str, Any], own: Collection[str]) -> list[str]:
    """List the settings in which a run must agree with a line there is."""
    if line["run"] == run.name:
        return [key for key in wanted if key not in CHANGE_NOTHING]
    search = {"learning_rate"} if "search" in (run.role, line.get("role")) else set()
    same = (line.get("method"), line.get("role"), line.get("task"))
    if same == (run.method.label, run.role, run.method.task):
        return [key for key in wanted if key not in CHANGE_NOTHING | OF_A_SEED | search]
    return [key for key in OF_ALL if key not in {*own, *search}]
