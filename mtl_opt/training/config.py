"""One YAML per run, read and checked here; keys follow LLaMA-Factory and Hugging Face where they have one."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_args

import torch
import yaml

from mtl_opt.combiners import COMBINERS
from mtl_opt.data import TEMPLATES, TaskFiles
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.gradients import ENGINES
from mtl_opt.models import COMPILERS
from mtl_opt.training.fields import (
    choice,
    either,
    flag,
    mapping,
    names,
    number,
    one_of,
    setting,
    text,
    whole,
    whole_numbers,
)
from mtl_opt.training.optim import OPTIMIZERS

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)

BUFFER_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
"""float32 means the default: float64 where the model has it."""

LARGEST_SEED = 2**32 - 1
"""What NumPy takes."""

LARGEST_RATE = 1e18
"""Beyond it, AdamW's own arithmetic leaves float32."""


def task_entries(key: str, value: Any) -> dict[str, Any]:
    """Check the entries under `tasks`.

    Args:
        key: Name of the key.
        value: Its value.

    Returns:
        The entries, with weights as numbers.

    Raises:
        InputError: If an entry is no mapping, or one of its values is not allowed.
        UnknownNameError: If an entry has an unknown key.
    """
    allowed = {f.name: f for f in fields(TaskFiles)}
    tasks = {name: mapping(f"{key}.{name}", entry) for name, entry in mapping(key, value).items()}
    if not tasks:
        raise InputError(f"`{key}` must name at least one task.")
    for name, entry in tasks.items():
        for inner in entry:
            if inner not in allowed:
                raise UnknownNameError(f"key under `{key}.{name}`:", inner, allowed)
        text(f"{key}.{name}.file", entry.get("file"))
        if entry.get("eval_file") is not None:
            text(f"{key}.{name}.eval_file", entry["eval_file"])
        if "weight" in entry:
            entry["weight"] = number(0)(f"{key}.{name}.weight", entry["weight"])
    return tasks


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every setting of one training run; the defaults are the YAML's defaults."""

    # model
    model_name_or_path: str = setting(text, "folder or hub name of a causal language model")
    trust_remote_code: bool = setting(flag, "run code that comes with the model", False)
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
    gradient_checkpointing: bool = setting(flag, "compute activations again instead of keeping them", False)
    torch_compile: bool = setting(flag, "compile the model; needs engine per_task", False)
    torch_compile_backend: str = setting(choice(*COMPILERS), "backend of torch.compile", "inductor")
    # data
    tasks: dict[str, Any] | None = setting(task_entries, "name: {file, eval_file, weight} for every task")
    train_file: str | None = setting(text, "one file for all tasks; rows carry task_name")
    eval_file: str | None = setting(text, "held-out rows for train_file")
    only_tasks: list[str] | None = setting(names, "train on these of the tasks only")
    val_size: float = setting(number(0), "rows held out where there is no eval_file: a share below 1, or a number", 0.1)
    template: str = setting(choice(*TEMPLATES), "text around a row", "default")
    cutoff_len: int = setting(whole(2), "longest row, in tokens", 2048)
    rows_per_task: int = setting(whole(1), "rows of each task per process and micro-batch", 4)
    packing: bool = setting(flag, "put short rows behind each other instead of padding them", False)
    # gradients
    combiner: str = setting(choice(*COMBINERS), "how task gradients are merged", "sum")
    combiner_args: dict[str, Any] = setting(mapping, "arguments of the combiner", {})
    scope: str | None = setting(choice("layer", "tensor"), "one copy of the combiner per layer or tensor")
    denoised: int | None = setting(whole(1), "steps whose Gramian, without sampling noise, gives the weights")
    smoothed: float | None = setting(number(0, 1, below=True), "share of the past in an average of the weights")
    every: int | None = setting(whole(1), "steps for which weights are used again")
    norm_matched: bool = setting(flag, "rescale the update to the norm of the mean gradient", False)
    observe_every: int = setting(whole(1), "steps between observations of held-out losses (CoBa)", 1)
    gradient_engine: str = setting(choice(*ENGINES), "how task gradients are computed", "auto")
    gradient_buffer_dtype: str = setting(choice(*BUFFER_DTYPES), "precision of the task gradients kept", "float32")
    gradient_buffer_device: str = setting(choice("model", "cpu"), "where the task gradients are kept", "model")
    gradient_window: int = setting(whole(0), "steps of noise-corrected statistics (a multiple of 10); 0: none", 0)
    verify_gradients: bool = setting(flag, "check in the first step that no loss mixes rows of two tasks", True)
    # optimization
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
    # output
    output_dir: str = setting(text, "folder of the run")
    logging_steps: int = setting(whole(1), "steps between two log lines, which average over them", 10)
    eval_steps: int | None = setting(whole(1), "steps between evaluations; default: only before and after")
    save_steps: int | None = setting(whole(1), "steps between checkpoints; null: none", 500)
    save_total_limit: int | None = setting(whole(1), "checkpoints to keep; default all")
    per_device_eval_batch_size: int = setting(whole(1), "rows per batch in evaluation", 16)
    max_new_tokens: int = setting(whole(1), "longest generated answer, in tokens", 64)
    resume_from_checkpoint: bool | str | None = setting(
        either(flag, text), "true: newest in output_dir, or a folder", False
    )

    @property
    def task_weights(self) -> dict[str, float]:
        """The `weight` of every task under `tasks`."""
        return {name: files.weight for name, files in (self.task_files or {}).items()}

    @property
    def task_files(self) -> dict[str, TaskFiles] | None:
        """The files of every task under `tasks`."""
        return None if self.tasks is None else {name: TaskFiles(**entry) for name, entry in self.tasks.items()}


ONE_RUN_KEYS = ("combiner", "seed", "resume_from_checkpoint", "only_tasks")
"""Keys of `TrainConfig` that a comparison sets itself, run by run."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared; every other key of the YAML is one of `TrainConfig` and holds for all runs."""

    combiners: list[str] = setting(
        names, "methods to compare", ["sum", "weighted", "uncertainty", "gradnorm", "pcgrad"]
    )
    seeds: list[int] = setting(
        whole_numbers(0, LARGEST_SEED), "seeds; every method sees the same data order per seed", [0, 1]
    )
    baselines: bool = setting(flag, "train every task alone too", True)
    combiner_args: dict[str, Any] = setting(mapping, "combiner: {its arguments}", {})


def train_config(settings: Mapping[str, Any]) -> TrainConfig:
    """Check the settings of one run.

    Args:
        settings: Raw settings.

    Returns:
        The configuration.

    Raises:
        InputError: If a key is unknown, missing or has a value that is not allowed.
    """
    mine = {f.name for f in fields(TrainConfig)}
    for key in settings:
        if key not in mine and key in {f.name for f in fields(CompareConfig)}:
            raise InputError(f"`{key}` belongs to `mtl-opt compare`; `mtl-opt train` runs one combiner: `combiner`.")
    config = TrainConfig(**_checked(TrainConfig, settings))
    _check_data(config)
    return config


def compare_config(settings: Mapping[str, Any]) -> tuple[CompareConfig, dict[str, Any]]:
    """Check the settings of a comparison.

    Args:
        settings: Raw settings.

    Returns:
        What is compared, and the raw settings that every run shares.

    Raises:
        InputError: If a key is unknown, missing or has a value that is not allowed.
        UnknownNameError: If there is no such combiner.
    """
    mine = {f.name for f in fields(CompareConfig)}
    for key in ONE_RUN_KEYS:
        if key in settings:
            raise InputError(f"`{key}` belongs to `mtl-opt train`; `mtl-opt compare` reads `combiners` and `seeds`.")
    config = CompareConfig(**_checked(CompareConfig, {k: v for k, v in settings.items() if k in mine}))
    for name in config.combiners:
        if name not in COMBINERS:
            raise UnknownNameError("combiner", name, COMBINERS)
    for name, arguments in config.combiner_args.items():
        if name not in config.combiners:
            raise UnknownNameError("combiner in `combiner_args`", name, config.combiners)
        mapping(f"combiner_args.{name}", arguments)
    shared = {k: v for k, v in settings.items() if k not in mine}
    train_config(shared)
    return config, shared


def precision_of(config: TrainConfig) -> torch.dtype | None:
    """Name what the forward is autocast to.

    Args:
        config: The configuration.

    Returns:
        A half precision, or None.
    """
    return torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None


def to_yaml(config: TrainConfig) -> str:
    """Write a configuration as YAML, Chinese text as it is.

    Args:
        config: The configuration.

    Returns:
        Text that `read_yaml` reads back.
    """
    return yaml.safe_dump(asdict(config), allow_unicode=True, sort_keys=False)


def _checked(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check every value; refuse unknown keys and missing ones."""
    known = {f.name: f for f in fields(cls)}
    for key in settings:
        if key not in known:
            raise UnknownNameError("key", key, known)
    result = {}
    for name, spec in known.items():
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        value = settings.get(name, default)
        may_be_none = default is None or type(None) in get_args(spec.type)
        result[name] = value if value is None and may_be_none else spec.metadata["check"](name, value)
    return result


def _check_data(config: TrainConfig) -> None:
    """Check what one key alone does not show."""
    for key in ("model_name_or_path", "output_dir"):
        if getattr(config, key) is None:
            raise InputError(f"`{key}` is missing from the configuration.")
    if (config.tasks is None) == (config.train_file is None):
        raise InputError("Give either `tasks` (name: {file, ...}) or `train_file`, not both or neither.")
    if config.eval_file is not None and config.train_file is None:
        raise InputError("`eval_file` goes with `train_file`; under `tasks` give every task its own `eval_file`.")
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
    if config.torch_compile and config.gradient_engine not in {"auto", "per_task"}:
        raise InputError(
            f"`torch_compile: true` goes with `gradient_engine: per_task`, got `{config.gradient_engine}`: that engine "
            "replaces the forward of layers, which compiled code does not see."
        )
    if config.max_steps == 0:
        raise InputError("`max_steps` must be at least 1, or -1 to count by `num_train_epochs`, got 0.")
