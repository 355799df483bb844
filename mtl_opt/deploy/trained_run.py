"""A trained run, opened from its folder to be exported or to answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl_opt.data import Encoder, TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.models import TaskOptions, load_tokenizer, read_about
from mtl_opt.results import ALL_RESULTS_JSON, CONFIG_YAML, HEADS_JSON, SHARING_JSON, TRAINER_STATE_JSON, read_results
from mtl_opt.training.config.run_config import TrainConfig, train_config
from mtl_opt.training.config.yaml_file import read_yaml
from mtl_opt.training.setup.data import entries_of, opener_of
from mtl_opt.training.setup.model import build_model


@dataclass(frozen=True)
class TrainedRun:
    """A run with its weights on disk.

    Attributes:
        folder: Where the weights are: the run's folder or a checkpoint.
        config: Its configuration, overrides included.
        tasks: Names of its tasks, in the order of the task ids.
        bit: Bits of the base it was trained on; None where that was not quantised.
    """

    folder: Path
    config: TrainConfig
    tasks: tuple[str, ...]
    bit: int | None = None

    def model(self) -> Any:
        """Load the trained model, on the CPU."""
        options: dict[str, Any] = {}
        if (self.folder / SHARING_JSON).exists():
            known = read_about(self.folder).get("task_options", {})
            options = {task: TaskOptions(**one) for task, one in known.items()}
        return build_model(self.config, self.tasks, options, self.folder, self.heads()).eval()

    def heads(self) -> dict[str, Any] | None:
        """Read the description of every task's head; None where the run has no heads."""
        if not (self.folder / HEADS_JSON).exists():
            return None
        about = json.loads((self.folder / HEADS_JSON).read_text(encoding="utf-8"))["tasks"]
        return {task: about.get(task) for task in self.tasks}

    def tokenizer(self) -> Any:
        """Load the tokenizer that the run saved."""
        return load_tokenizer(str(self.folder), trust_remote_code=self.config.trust_remote_code)

    def encoder(self, task: str, tokenizer: Any) -> Encoder:
        """Build the encoder of a task's prompts, as in training."""
        settings = {entry.train.task: entry.train.settings for entry in entries_of(self.config)[0]}
        return opener_of(self.config, tokenizer).encoder_of(settings.get(task, TaskSettings()), task)


def open_trained(where: str | Path, overrides: Sequence[str] = ()) -> TrainedRun:
    """Open a run by its files.

    Args:
        where: Folder of a run or checkpoint, or the YAML of a run.
        overrides: Settings of the run that win, as `key=value`, such as a model that has moved.

    Returns:
        The run; no weights are loaded yet.

    Raises:
        InputError: If there is no finished run or checkpoint, or its files cannot be read.
    """
    path = Path(where)
    if path.is_dir():
        folder, file = path, path / CONFIG_YAML
        file = file if file.exists() else path.parent / CONFIG_YAML
    else:
        if not path.exists():
            raise InputError(f"There is no run or configuration `{path}`.")
        file = path
        folder = Path(_config(path, overrides).output_dir)
        own = folder / CONFIG_YAML
        file = own if own.exists() else file
    finished = read_results(folder) is not None
    if not file.exists() or not (finished or (folder / TRAINER_STATE_JSON).exists()):
        raise InputError(f"`{folder}` holds no finished run ({ALL_RESULTS_JSON} is missing).")
    config = replace(_config(file, overrides), output_dir=str(folder))
    bit = _config(file, []).quantization_bit
    return TrainedRun(folder, config, _tasks(folder), bit)


def _config(file: Path, overrides: Sequence[str]) -> TrainConfig:
    """Read the configuration of a run; what a YAML asks of its export is read there."""
    return train_config({k: v for k, v in read_yaml(file, overrides).items() if not k.startswith("export_")})


def _tasks(folder: Path) -> tuple[str, ...]:
    """Read the tasks of a run from its files alone: the data may be gone."""
    if (folder / SHARING_JSON).exists():
        return tuple(read_about(folder)["tasks"])
    if (folder / TRAINER_STATE_JSON).exists():
        from mtl_opt.training.run.checkpoint import read_state

        return tuple(read_state(folder)["tasks"])
    results = read_results(folder) or {}
    found = [key.removeprefix("params_") for key in results if key.startswith("params_") and key != "params_shared"]
    if not found:
        raise InputError(f"`{folder / ALL_RESULTS_JSON}` names no tasks: the run was made by an earlier version.")
    return tuple(found)
