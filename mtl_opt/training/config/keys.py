"""The keys of a configuration by subject, with checks and defaults."""

from dataclasses import dataclass
from typing import Any

import torch

from mtl_opt.checks import (
    choice,
    either,
    flag,
    mapping,
    names,
    number,
    one_of,
    setting,
    steps,
    text,
    whole,
)
from mtl_opt.combiners import COMBINERS
from mtl_opt.data import EXHAUSTION, MIXINGS, TEMPLATES, check_entry
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.gradients import ENGINES, LOSS_REDUCTIONS
from mtl_opt.models import COMPILERS, SHARING
from mtl_opt.training.config.heads import head_table
from mtl_opt.training.optimizers import OPTIMIZERS

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)


def shadow_names(key: str, value: Any) -> list[str]:
    """Check a list of combiners; `none` is the empty list."""
    if value in ("none", [], ["none"]):
        return []
    found = names(key, value)
    for name in found:
        if name not in COMBINERS:
            raise UnknownNameError(f"combiner in `{key}`", name, [*COMBINERS, "none"])
    return found


def task_table(key: str, value: Any) -> dict[str, Any]:
    """Check the entries under `tasks`."""
    tasks = {name: mapping(f"{key}.{name}", entry) for name, entry in mapping(key, value).items()}
    if not tasks:
        raise InputError(f"`{key}` must name at least one task.")
    checked = {name: check_entry(entry, f"{key}.{name}") for name, entry in tasks.items()}
    for name, entry in checked.items():
        if ("file" in entry or "file_name" in entry) == ("hf_hub_url" in entry):
            raise InputError(
                f"`{key}.{name}.file` must be a non-empty text, or `hf_hub_url`; one of the two is needed."
            )
    return checked


def task_shares(key: str, value: Any) -> dict[str, float]:
    """Check shares of tasks; `Ratios` normalises them."""
    found = {task: number(0)(f"{key}.{task}", share) for task, share in mapping(key, value).items()}
    if not any(found.values()):
        raise InputError(f"`{key}` must give at least one task a share above 0.")
    return found


BUFFER_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
"""float32 means the default: float64 where the model has it."""

LARGEST_SEED = 2**32 - 1
"""What NumPy takes."""

LARGEST_RATE = 1e18
"""Beyond it, AdamW's own arithmetic leaves float32."""


@dataclass(frozen=True, kw_only=True)
class ModelKeys:
    """The model and what of it is trained."""

    model_name_or_path: str = setting(text, "folder or hub name of a causal language model; with heads an encoder too")
    heads: dict[str, Any] = setting(head_table, "task: {type, labels, ...}: heads (`mtl-opt list heads`)", {})
    trust_remote_code: bool = setting(flag, "run code that comes with the model", False)
    adapter_name_or_path: str | None = setting(text, "adapter to go on from; rank, alpha and layers are then its own")
    create_new_adapter: bool = setting(flag, "LLaMA-Factory's: merge that adapter first; refused here", False)
    finetuning_type: str = setting(choice("lora", "full"), "lora or full", "lora")
    lora_rank: int = setting(whole(1), "rank of the adapters", 8)
    lora_alpha: int | None = setting(whole(1), "scale of the adapters; default twice the rank")
    lora_dropout: float = setting(number(0, 1, below=True), "dropout on the adapters' input", 0.0)
    lora_target: list[str] = setting(names, "all, or names of linear layers", ["all"])
    use_rslora: bool = setting(flag, "scale adapters by alpha / sqrt(rank)", False)
    use_dora: bool = setting(flag, "DoRA; needs engine per_task", False)
    quantization_bit: int | None = setting(one_of(4, 8), "bits of the frozen base's weights: 4 or 8 (lora only)")
    quantization_method: str = setting(choice("bnb"), "who quantises: bitsandbytes", "bnb")
    quantization_type: str = setting(choice("nf4", "fp4"), "number format of 4 bits", "nf4")
    double_quantization: bool = setting(flag, "quantise the scales of 4-bit blocks too", True)
    sharing: str = setting(choice(*SHARING), "which parameters all tasks train and which belong to one", "hard")
    sharing_args: dict[str, Any] = setting(mapping, "arguments of the way of sharing", {})
    gradient_checkpointing: bool = setting(flag, "compute activations again instead of keeping them", False)
    torch_compile: bool = setting(flag, "compile the model; needs engine per_task", False)
    torch_compile_backend: str = setting(choice(*COMPILERS), "backend of torch.compile", "inductor")


@dataclass(frozen=True, kw_only=True)
class DataKeys:
    """Where the rows come from and how they are tokenised."""

    tasks: dict[str, Any] | None = setting(task_table, "name: {file, eval_file, weight, ...} for every task")
    dataset: list[str] | None = setting(names, "data sets of dataset_dir/dataset_info.json")
    dataset_dir: str = setting(text, "folder of dataset_info.json; ONLINE: dataset gives hub names", "data")
    eval_dataset: list[str] | None = setting(names, "data sets with held-out rows")
    train_file: list[str] | None = setting(names, "files for all tasks; rows carry task_name")
    eval_file: list[str] | None = setting(names, "held-out rows for train_file")
    only_tasks: list[str] | None = setting(names, "train on these of the tasks only")
    val_size: float = setting(number(0), "rows held out where there is no eval_file: a share below 1, or a number", 0.1)
    val_from_train: float | None = setting(
        number(0, above=True), "measure on so many of the training rows instead, as val_size; for choosing settings"
    )
    val_split_by: str | None = setting(
        choice("group"), "group: rows that ask the same, or have the same `group`, are held out together"
    )
    deduplicate: str | None = setting(
        choice("exact", "near"), "leave out training rows that repeat a held-out or an earlier row of their task"
    )
    max_samples: int | None = setting(whole(1), "most rows taken of each file or data set to train on; default all")
    max_eval_samples: int | None = setting(whole(1), "most held-out rows of each task; default all")
    skip_bad_rows: bool = setting(flag, "leave bad rows out and list them; otherwise the first one is an error", False)
    streaming: bool = setting(flag, "read rows on the way instead of all at once; needs max_steps", False)
    buffer_size: int = setting(whole(1), "rows of a stream that are shuffled together", 16384)
    template: str = setting(choice(*TEMPLATES), "text around a row", "default")
    enable_thinking: bool | None = setting(flag, "whether a chat template lets the model reason; default by row")
    task_prefix: str | None = setting(text, "line before what is asked, such as '### Task: {task}'")
    mask_history: bool = setting(flag, "learn only the last answer of a dialogue", False)
    train_on_prompt: bool = setting(flag, "learn what is asked too", False)
    cutoff_len: int = setting(whole(2), "longest row, in tokens", 2048)
    text_blocks: bool = setting(flag, "cut long plain text into blocks of cutoff_len instead of losing its tail", False)
    truncation: str = setting(choice("cut", "error"), "what happens to longer rows", "cut")
    tokenized_path: str | None = setting(text, "folder for tokenised rows; default below the user's cache")
    overwrite_cache: bool = setting(flag, "tokenise again what is cached", False)


@dataclass(frozen=True, kw_only=True)
class BatchKeys:
    """Which rows make up a step."""

    rows_per_task: int = setting(whole(1), "rows of each task per process and micro-batch", 4)
    per_device_train_batch_size: int | None = setting(whole(1), "the same, for all tasks together; divided over them")
    mixing: str = setting(choice(*MIXINGS), "how tasks share the rows of a step", "balanced")
    mixing_args: dict[str, Any] = setting(mapping, "arguments of the mixing", {})
    ratios: dict[str, float] | None = setting(
        task_shares, "task: share of the rows (of the steps under homogeneous), for mixing: ratios"
    )
    tasks_per_step: int | None = setting(whole(1), "most tasks in one step; default all")
    stratify_by: str | None = setting(choice("label"), "label: every batch has a task's labels in their shares")
    exhaustion: str = setting(choice(*EXHAUSTION), "what follows once the rows of a task are used up", "repeat")
    group_by_length: bool = setting(flag, "draw rows of similar length together, task by task", False)
    tokens_per_batch: int | None = setting(whole(2), "most tokens, padding included, that go through the model at once")
    dataloader_num_workers: int = setting(whole(0), "threads that prepare batches ahead of the step", 0)
    dataloader_prefetch_factor: int = setting(whole(1), "steps prepared ahead per thread", 2)
    data_seed: int | None = setting(whole(0, LARGEST_SEED), "seed of the order of rows; default seed")
    packing: bool = setting(flag, "put short rows behind each other instead of padding them", False)


@dataclass(frozen=True, kw_only=True)
class GradientKeys:
    """How task gradients are computed and combined."""

    combiner: str = setting(choice(*COMBINERS), "how task gradients are merged", "sum")
    combiner_args: dict[str, Any] = setting(mapping, "arguments of the combiner", {})
    loss_reduction: str = setting(
        choice(*LOSS_REDUCTIONS),
        "how hard a task pulls: like its rows, like its label tokens, or all alike (task)",
        "rows",
    )
    scope: str | None = setting(choice("layer", "tensor"), "one copy of the combiner per layer or tensor")
    denoised: int | None = setting(whole(1), "steps whose Gramian, without sampling noise, gives the weights")
    smoothed: float | None = setting(number(0, 1, below=True), "share of the past in an average of the weights")
    every: int | None = setting(whole(1), "steps for which weights are used again")
    norm_matched: bool = setting(flag, "rescale the update to the norm of the mean gradient", False)
    observe_every: int = setting(whole(1), "steps between observations of held-out losses (CoBa)", 1)
    gradient_engine: str = setting(choice(*ENGINES), "how task gradients are computed", "auto")
    gradient_buffer_dtype: str = setting(choice(*BUFFER_DTYPES), "precision of the task gradients kept", "float32")
    gradient_buffer_device: str = setting(choice("model", "cpu"), "where the task gradients are kept", "model")
    gradient_window: int | None = setting(
        whole(0), "steps of noise-corrected statistics (a multiple of 10); 0: none; default 100 with lora, else 0"
    )
    shadow_combiners: list[str] | None = setting(
        shadow_names, "what would other combiners do: names, or none; default all that a Gramian is enough for"
    )
    monitor_only: bool = setting(flag, "take the plain sum, and only watch what the combiner would do", False)
    layer_conflict: bool = setting(flag, "cosines of every layer at every log line", True)
    verify_gradients: bool = setting(flag, "check in the first step that no loss mixes rows of two tasks", True)


@dataclass(frozen=True, kw_only=True)
class OptimizationKeys:
    """How an optimizer step is taken."""

    optim: str = setting(choice(*OPTIMIZERS), "optimizer, by its Hugging Face name", "adamw_torch")
    learning_rate: float = setting(number(0, LARGEST_RATE, above=True), "peak learning rate", 1e-4)
    weight_decay: float = setting(number(0, LARGEST_RATE), "weight decay, decoupled in AdamW", 0.0)
    adam_beta1: float = setting(number(0, 1, below=True), "first beta of AdamW", 0.9)
    adam_beta2: float = setting(number(0, 1, below=True), "second beta of AdamW", 0.999)
    adam_epsilon: float = setting(number(0, above=True), "epsilon of AdamW", 1e-8)
    max_grad_norm: float = setting(number(0), "clip the combined gradient to this norm; 0: never", 1.0)
    lr_scheduler_type: str = setting(choice(*SCHEDULERS), "shape of the learning rate", "linear")
    warmup_steps: float = setting(number(0), "steps of warm-up; below 1: share of all steps", 0.0)
    max_steps: int = setting(whole(-1), "optimizer steps; -1: as many as num_train_epochs takes", -1)
    num_train_epochs: float = setting(number(0, above=True), "times as many rows are drawn as there are in all", 3.0)
    gradient_accumulation_steps: int = setting(whole(1), "micro-batches per optimizer step", 1)
    bf16: bool = setting(flag, "bfloat16 autocast", False)
    fp16: bool = setting(flag, "float16 autocast with a loss scale; a step that overflows is skipped", False)
    fsdp: str = setting(choice("none", "base", "full"), "spread the frozen base, or all, over the processes", "none")
    ddp_timeout: int = setting(whole(1), "seconds after which a process gives up on one that hangs", 1800)
    seed: int = setting(whole(0, LARGEST_SEED), "seed of initialisation, data order and dropout", 42)


@dataclass(frozen=True, kw_only=True)
class OutputKeys:
    """What is written and measured, and when."""

    output_dir: str = setting(text, "folder of the run")
    logging_steps: int = setting(whole(1), "steps between two log lines, which average over them", 10)
    eval_steps: float | None = setting(steps, "steps between evaluations; default: only before and after")
    save_steps: float | None = setting(steps, "steps between checkpoints; below 1: share of all; null: none", 500)
    save_total_limit: int | None = setting(whole(1), "checkpoints to keep, the best one among them; default all")
    early_stopping_patience: int | None = setting(
        whole(1), "evaluations in a row without improvement after which the run stops; default: never"
    )
    early_stopping_threshold: float = setting(number(0), "what an improvement must exceed to count", 0.0)
    metric_for_best_model: str = setting(
        text, "what evaluations are judged by: mean or worst over main metrics, loss, or TASK/metric", "mean"
    )
    greater_is_better: bool | None = setting(flag, "direction of that metric, which is known: for a check only")
    load_best_model_at_end: bool = setting(
        flag, "save every evaluation that is the best so far; the best one is the result", False
    )
    per_device_eval_batch_size: int = setting(whole(1), "rows per batch in evaluation", 16)
    plot_loss: bool = setting(flag, "draw training_loss.png and one curve per task", False)
    max_new_tokens: int = setting(whole(1), "longest generated answer, in tokens", 64)
    resume_from_checkpoint: bool | str | None = setting(
        either(flag, text), "true: newest in output_dir, or a folder", False
    )
