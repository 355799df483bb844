"""One tiny model and its data for all tests of training, and settings that each test changes to its need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training.tiny_run import build_data, build_model, write_config

from mtl_opt import cli


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Save the tiny model once."""
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Write the data once."""
    return build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def settings(tmp_path: Path, model_folder: str, task_files: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Give the settings of a run of four steps into `run`, with every number of each step logged."""
    return {
        "model_name_or_path": model_folder,
        "tasks": {task: dict(files) for task, files in task_files.items()},
        "output_dir": str(tmp_path / "run"),
        "lora_rank": 2,
        "rows_per_task": 2,
        "learning_rate": 0.01,
        "max_steps": 4,
        "cutoff_len": 48,
        "logging_steps": 1,
        "save_steps": None,
        "max_new_tokens": 3,
        "shadow_combiners": "none",  # thirty methods a step, which their own tests switch on
    }


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a verb that must refuse its input: exit code 2 and one sentence, which is returned."""

    def run(settings: Any, *overrides: str, verb: str = "train") -> str:
        path = write_config(tmp_path / "config.yaml", settings) if isinstance(settings, dict) else str(settings)
        assert cli.main([verb, path, *overrides]) == 2
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("mtl-opt: error: ")]
        assert len(lines) == 1, err
        assert "Traceback" not in out + err
        assert err.rstrip("\n").endswith(lines[0]), err
        return lines[0].removeprefix("mtl-opt: error: ")

    return run
