"""A trained run, opened from its folder for whatever comes after training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl_opt.data import Encoder, TaskSettings
from mtl_opt.errors import InputError
from mtl_opt.models import TaskOptions, load_tokenizer, read_about
from mtl_opt.results import ALL_RESULTS_JSON, CONFIG_YAML, TRAINER_STATE_JSON, read_results
from mtl_opt.training.config.run_config import TrainConfig, train_config
from mtl_opt.training.config.yaml_file import read_yaml
from mtl_opt.training.setup.data import entries_of, opener_of
from mtl_opt.training.setup.model import build_model

HEADS = "heads.json"


@dataclass(frozen=True)
class Trained:
    """Name what a run has left.

    Attributes:
        folder: Where its weights are: the run's folder or a checkpoint.
        config: Its configuration.
        tasks: Its tasks, in the order of the task ids.
        bit: Bits of the base it was trained on; None where that was not quantised.
    """

    folder: Path
    config: TrainConfig
    tasks: tuple[str, ...]
    bit: int | None = None

    def model(self) -> Any:
        """Load the trained model, on the CPU."""
        options: dict[str, Any] = {}
        if (self.folder / "sharing.json").exists():
            known = read_about(self.folder).get("task_options", {})
            options = {task: TaskOptions(**one) for task, one in known.items()}
        return build_model(self.config, self.tasks, options, self.folder, self.heads()).eval()

    def heads(self) -> dict[str, Any] | None:
        """Read what the heads of the run are for."""
        if not (self.folder / HEADS).exists():
            return None
        about = json.loads((self.folder / HEADS).read_text(encoding="utf-8"))["tasks"]
        return {task: about.get(task) for task in self.tasks}

    def tokenizer(self) -> Any:
        """Load the tokenizer that the run has saved."""
        return load_tokenizer(str(self.folder), trust_remote_code=self.config.trust_remote_code)

    def encoder(self, task: str, tokenizer: Any) -> Encoder:
        """Build what makes prompts of a task, as in training."""
        settings = {entry.train.task: entry.train.settings for entry in entries_of(self.config)[0]}
        return opener_of(self.config, tokenizer).encoder_of(settings.get(task, TaskSettings()), task)


def open_trained(where: str | Path, overrides: Sequence[str] = ()) -> Trained:
    """Find what a run has left."""
    path = Path(where)
    if path.is_dir():
        folder, file = path, path / CONFIG_YAML
        file = file if file.exists() else path.parent / CONFIG_YAML
    else:
        if not path.exists():
            raise InputError(f"There is no run or configuration `{path}`.")
        file = path
        folder = Path(train_config(read_yaml(path, overrides)).output_dir)
        own = folder / CONFIG_YAML
        file = own if own.exists() else file
    if not file.exists() or not (_finished(folder) or (folder / TRAINER_STATE_JSON).exists()):
        raise InputError(f"`{folder}` holds no finished run ({ALL_RESULTS_JSON} is missing).")
    config = replace(train_config(read_yaml(file, overrides)), output_dir=str(folder))
    bit = train_config(read_yaml(file, [])).quantization_bit
    return Trained(folder, config, _tasks(folder), bit)


def _finished(folder: Path) -> bool:
    """Tell whether a run has come to its end."""
    return read_results(folder) is not None


def _tasks(folder: Path) -> tuple[str, ...]:
    """Name the tasks that the run was trained on, from its files alone: the data may be gone."""
    if (folder / "sharing.json").exists():
        return tuple(read_about(folder)["tasks"])
    if (folder / TRAINER_STATE_JSON).exists():
        from mtl_opt.training.run.checkpoint import read_state

        return tuple(read_state(folder)["tasks"])
    results = read_results(folder) or {}
    found = [key.removeprefix("params_") for key in results if key.startswith("params_") and key != "params_shared"]
    if not found:
        raise InputError(f"`{folder / ALL_RESULTS_JSON}` names no tasks: the run was made by an earlier version.")
    return tuple(found)
