"""`torchrun -m mtl_opt.cli train`: several processes learn what one process with the same global batch learns."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from launch import command, environment, torchrun
from safetensors.torch import load_file
from tiny_run import config_of, write_config

from mtl_opt.training import train

pytestmark = pytest.mark.slow


def weights_in(folder: Path, name: str) -> torch.Tensor:
    tensors = load_file(folder / name)
    return torch.cat([tensors[key].flatten() for key in sorted(tensors)])


def adapter(folder: Path) -> torch.Tensor:
    return weights_in(folder, "adapter_model.safetensors")


def run_in_two(tmp_path: Path, settings, **changes) -> subprocess.CompletedProcess[str]:
    path = write_config(tmp_path / "two.yaml", {**settings, "rows_per_task": 1, **changes})
    return torchrun(2, "-m", "mtl_opt.cli", "train", path)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    "changes",
    [
        {"combiner": "pcgrad", "gradient_accumulation_steps": 2},
        {"combiner": "gradnorm", "gradient_engine": "per_task"},
        {"combiner": "famo"},
        {"combiner": "sum", "mixing": "learning_speed", "dataloader_num_workers": 1},
        {"combiner": "mean", "mixing": "sqrt", "dataloader_num_workers": 1},
    ],
    ids=lambda changes: changes["combiner"],
)
def test_two_processes_end_with_the_adapter_of_one(settings, tmp_path, changes):
    settings |= {**changes, "save_steps": 2}
    one = train(config_of({**settings, "output_dir": str(tmp_path / "one")}))
    done = run_in_two(tmp_path, settings, output_dir=str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert relative(adapter(tmp_path / "two"), adapter(tmp_path / "one")) < 1e-5
    two = json.loads((tmp_path / "two" / "all_results.json").read_text(encoding="utf-8"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["epoch"] == one["epoch"]
    assert two["eval_qa_loss"] == pytest.approx(one["eval_qa_loss"], rel=1e-4)
    assert done.stdout.count("Results and adapter") == 1  # one process speaks
    assert not list((tmp_path / "two").rglob("*.partial"))


@pytest.mark.parametrize("before", [1, 2])
def test_a_run_goes_on_with_another_number_of_processes(settings, tmp_path, before):
    settings |= {"combiner": "pcgrad", "save_steps": 2}
    whole = train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    cut = {**settings, "output_dir": str(tmp_path / "cut")}
    folder = tmp_path / "cut"
    if before == 1:
        train(config_of(cut))
    else:
        assert run_in_two(tmp_path, cut).returncode == 0
    for name in ("all_results.json", "adapter_model.safetensors"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoint-4")
    if before == 1:
        done = run_in_two(tmp_path, cut, resume_from_checkpoint=True)
        assert done.returncode == 0, done.stderr
    else:
        train(config_of(cut, resume_from_checkpoint=True))
    assert relative(adapter(folder), adapter(tmp_path / "whole")) < 1e-5
    assert whole["train_steps"] == 4


def test_another_number_of_processes_with_the_same_rows_each_is_another_run(settings, tmp_path):
    settings |= {"save_steps": 2, "output_dir": str(tmp_path / "run")}
    train(config_of(settings))
    (tmp_path / "run" / "all_results.json").unlink()
    done = run_in_two(tmp_path, settings, rows_per_task=2, resume_from_checkpoint=True)
    assert done.returncode != 0
    assert "`rows_per_task` was 1 when" in done.stderr


def test_bad_input_is_said_and_ends_all_processes(settings, tmp_path):
    done = run_in_two(tmp_path, settings, combiner_args={"unheard_of": 1})
    assert done.returncode != 0
    assert "mtl-opt: error: `combiner_args`: `sum` has no argument `unheard_of`" in done.stderr
    assert not Path(settings["output_dir"]).exists()


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in found]


def test_a_process_that_dies_ends_the_job_with_a_message(settings, tmp_path):
    path = write_config(tmp_path / "two.yaml", {**settings, "rows_per_task": 1, "max_steps": 100_000})
    job = subprocess.Popen(
        command(2, ["-m", "mtl_opt.cli", "train", path]), stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        log = Path(settings["output_dir"]) / "trainer_log.jsonl"
        limit = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and time.monotonic() < limit:
            time.sleep(0.2)
        assert log.exists()
        os.kill(_children(job.pid)[1], signal.SIGKILL)
        _, err = job.communicate(timeout=90)
    finally:
        job.kill()
    assert job.returncode != 0
    assert re.search(r"exitcode\s*: -9", err), err


@pytest.mark.parametrize(
    "changes",
    [
        {"fsdp": "base", "gradient_checkpointing": True},
        {"fsdp": "full", "finetuning_type": "full", "learning_rate": 1e-3},
        {"fsdp": "full"},
    ],
    ids=["base", "full", "full-lora"],
)
def test_a_sharded_model_learns_and_saves_what_a_whole_one_does(settings, tmp_path, changes):
    settings |= {**changes, "combiner": "pcgrad", "save_steps": 2}
    train(config_of({**settings, "fsdp": "none", "output_dir": str(tmp_path / "one")}))
    two = {**settings, "output_dir": str(tmp_path / "two")}
    done = run_in_two(tmp_path, two)
    assert done.returncode == 0, done.stderr
    name = "model.safetensors" if "finetuning_type" in changes else "adapter_model.safetensors"
    assert relative(weights_in(tmp_path / "two", name), weights_in(tmp_path / "one", name)) < 1e-5
    (tmp_path / "two" / "all_results.json").unlink()
    shutil.rmtree(tmp_path / "two" / "checkpoint-4")
    done = run_in_two(tmp_path, two, resume_from_checkpoint=True)
    assert done.returncode == 0, done.stderr
    assert relative(weights_in(tmp_path / "two", name), weights_in(tmp_path / "one", name)) < 1e-5


def test_one_process_cannot_spread_a_model(settings, refused):
    assert "this is one; use `torchrun`" in refused(settings, "fsdp=base")
