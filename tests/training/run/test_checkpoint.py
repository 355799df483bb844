"""A run that was stopped, killed or cut short goes on as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import config_of, digest, log_lines, mostly_slow, write_config

from mtl_opt import cli
from mtl_opt.errors import InputError
from mtl_opt.training import train
from mtl_opt.training.run.measurement import evaluate_folder

RESUME = {"resume_from_checkpoint": True}

TIMES = {"train_runtime", "evaluation_runtime", "overhead_seconds", "steps_per_second", "time"}


def adapter(folder) -> bytes:
    return (Path(folder) / "adapter_model.safetensors").read_bytes()


def comparable(results):
    """Leave out what depends on the clock and the machine."""
    return {key: value for key, value in results.items() if key not in TIMES} | {"peak_memory_mb": 0}


def cut_back(folder: Path, step: int) -> None:
    """Bring a finished run to where a kill right after the checkpoint of `step` would have left it."""
    for path in folder.iterdir():
        later = path.name.startswith("checkpoint-") and int(path.name.split("-")[1]) > step
        if later:
            shutil.rmtree(path)
        elif path.name.startswith("adapter") or path.name == "all_results.json":
            path.unlink()


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            {"combiner": "gradnorm"},
            {"combiner": "pcgrad", "gradient_accumulation_steps": 2, "shadow_combiners": None},
            {"combiner": "uncertainty", "lr_scheduler_type": "cosine", "warmup_steps": 2},
            {"combiner": "weighted", "weight_decay": 0.1, "gradient_engine": "per_task"},
            {"combiner": "pcgrad", "finetuning_type": "full"},
            {"combiner": "sum", "bf16": True},
            {"combiner": "mgda", "denoised": 20, "smoothed": 0.5},
            {"combiner": "modo"},
            {"combiner": "famo", "gradient_accumulation_steps": 2},
            {"combiner": "coba", "combiner_args": {"warmup": 2, "window": 4}},
            {"combiner": "pcgrad", "scope": "layer", "smoothed": 0.5, "every": 2, "norm_matched": True},
        ],
        fast=[{"combiner": "gradnorm"}, {"combiner": "modo"}],
    ),
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_from_every_checkpoint_the_run_ends_in_the_same_bits(settings, tmp_path, changes):
    settings |= {**changes, "lora_dropout": 0.3, "save_steps": 1, "eval_steps": 2, "logging_steps": 1}
    whole = train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    file = "model.safetensors" if "finetuning_type" in changes else "adapter_model.safetensors"
    wanted = (tmp_path / "whole" / file).read_bytes()
    for step in (3, 2, 1):  # each time from the newest checkpoint there is
        again = tmp_path / f"again-{step}"
        shutil.copytree(tmp_path / "whole", again)
        cut_back(again, step)
        results = train(config_of({**settings, **RESUME, "output_dir": str(again)}))
        assert (again / file).read_bytes() == wanted
        assert comparable(results) == comparable(whole)
        steps = [line["current_steps"] for line in log_lines(again) if "lr" in line]
        assert steps == [1, 2, 3, 4]
        assert [line["current_steps"] for line in log_lines(again) if "lr" not in line] == [0, 2, 4]


def test_the_same_numbers_are_logged_again(settings):
    settings |= {"lora_dropout": 0.3, "save_steps": 1, "combiner": "pcgrad"}
    train(config_of(settings))
    folder = Path(settings["output_dir"])
    before = log_lines(folder)
    cut_back(folder, 2)
    train(config_of({**settings, **RESUME}))
    clock = ("elapsed_time", "remaining_time")
    for old, new in zip(before, log_lines(folder), strict=True):
        assert {k: v for k, v in old.items() if k not in clock} == {k: v for k, v in new.items() if k not in clock}


def test_a_finished_run_is_left_as_it_is(settings, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", {**settings, "save_steps": 2})
    assert cli.main(["train", config]) == 0
    folder = Path(settings["output_dir"])
    before, printed = digest(folder), capsys.readouterr().out
    assert cli.main(["train", config, "resume_from_checkpoint=true"]) == 0
    assert cli.main(["train", config, f"resume_from_checkpoint={folder / 'checkpoint-2'}"]) == 0
    assert digest(folder) == before
    assert capsys.readouterr().out == printed * 2


@pytest.mark.parametrize("save_steps", [None, 2])
def test_results_of_other_settings_are_not_passed_off_as_those_of_these(settings, refused, save_steps):
    settings["save_steps"] = save_steps
    train(config_of(settings))
    sentence = refused(settings, "resume_from_checkpoint=true", "learning_rate=0.5")
    assert "`learning_rate` was 0.01" in sentence
    assert "0.5" in sentence


def test_other_settings_are_refused_and_change_nothing(settings, refused):
    settings["save_steps"] = 2
    train(config_of(settings))
    folder = Path(settings["output_dir"])
    cut_back(folder, 2)
    before = digest(folder)
    for override, old in (("learning_rate=0.5", "0.01"), ("combiner=pcgrad", "'sum'"), ("max_steps=9", "4")):
        for resume in ("true", str(folder / "checkpoint-2")):
            sentence = refused(settings, f"resume_from_checkpoint={resume}", override)
            key, _, new = override.partition("=")
            assert f"`{key}` was {old}" in sentence
            assert new in sentence
    assert digest(folder) == before


def test_how_often_things_are_written_may_change(settings):
    settings["save_steps"] = 2
    wanted = train(config_of(settings))
    folder = Path(settings["output_dir"])
    cut_back(folder, 2)
    changes = {"save_steps": 1, "eval_steps": 3, "logging_steps": 2, "save_total_limit": 1}
    results = train(config_of({**settings, **RESUME, **changes}))
    assert {**comparable(results), "best": None} == {**comparable(wanted), "best": None}  # of other evaluations
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-4"]


def test_a_run_killed_before_its_first_checkpoint_starts_over(settings, tmp_path):
    settings["save_steps"] = 3
    train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    folder = Path(settings["output_dir"])
    shutil.copytree(tmp_path / "whole", folder)
    cut_back(folder, 0)
    (folder / "checkpoint-3.partial").mkdir()
    (folder / "checkpoint-3.partial" / "trainer_state.json").write_text("{", encoding="utf-8")
    for no in (False, None):
        with pytest.raises(InputError, match="already holds a run"):
            train(config_of({**settings, "resume_from_checkpoint": no}))
    train(config_of({**settings, **RESUME}))
    assert adapter(folder) == adapter(tmp_path / "whole")
    assert [line["current_steps"] for line in log_lines(folder)] == [0, 1, 2, 3, 4, 4]
    assert len(list((folder / "runs").iterdir())) == 1
    assert not list(folder.glob("*.partial"))


def test_a_half_written_checkpoint_is_ignored(settings, tmp_path):
    settings["save_steps"] = 1
    train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    folder = Path(settings["output_dir"])
    shutil.copytree(tmp_path / "whole", folder)
    cut_back(folder, 2)
    shutil.copytree(folder / "checkpoint-2", folder / "checkpoint-3.partial")
    (folder / "checkpoint-3.partial" / "optimizer.pt").unlink()
    train(config_of({**settings, **RESUME}))
    assert adapter(folder) == adapter(tmp_path / "whole")
    assert not list(folder.glob("*.partial"))


def test_an_earlier_checkpoint_can_be_named(settings, tmp_path):
    settings |= {"save_steps": 1, "lora_dropout": 0.3}
    train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    folder = Path(settings["output_dir"])
    shutil.copytree(tmp_path / "whole", folder)
    cut_back(folder, 3)
    train(config_of({**settings, "resume_from_checkpoint": str(folder / "checkpoint-1")}))
    assert adapter(folder) == adapter(tmp_path / "whole")
    assert [line["current_steps"] for line in log_lines(folder) if "lr" in line] == [1, 2, 3, 4]
    assert evaluate_folder(folder) == evaluate_folder(tmp_path / "whole")


def test_a_checkpoint_of_another_folder_is_the_start_of_a_new_one_but_never_mixed_into_a_third(settings, tmp_path):
    settings["save_steps"] = 2
    whole = tmp_path / "whole"
    train(config_of({**settings, "output_dir": str(whole)}))
    named = {**settings, "resume_from_checkpoint": str(whole / "checkpoint-2")}
    before = digest(whole)
    train(config_of(named))
    assert digest(whole) == before
    assert adapter(settings["output_dir"]) == adapter(whole)
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "config.yaml").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="no checkpoint of"):
        train(config_of({**named, "output_dir": str(tmp_path / "third")}))


@pytest.mark.parametrize(
    "file",
    [
        "trainer_state.json",
        "optimizer.pt",
        "scheduler.pt",
        "combiner.pt",
        "rng_state.pth",
        "adapter_model.safetensors",
        "adapter_config.json",
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"torn", b"[]"])
def test_a_damaged_checkpoint_is_one_sentence(settings, refused, finished, file, content):
    folder = Path(settings["output_dir"])
    shutil.copytree(finished, folder)
    cut_back(folder, 2)
    (folder / "checkpoint-2" / file).unlink()
    if content is not None:
        (folder / "checkpoint-2" / file).write_bytes(content)
    assert "checkpoint-2" in refused({**settings, "save_steps": 2}, "resume_from_checkpoint=true")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_folder, task_files):
    """Train once with a checkpoint in the middle; `settings` with save_steps 2 and its output folder."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    changes = {"output_dir": str(folder), "save_steps": 2, "max_steps": 4, "rows_per_task": 2, "lora_rank": 2}
    more = {"learning_rate": 0.01, "cutoff_len": 48, "logging_steps": 1, "max_new_tokens": 3}
    train(config_of({"model_name_or_path": model_folder, "tasks": task_files, **changes, **more}))
    return folder


def test_a_checkpoint_of_the_hugging_face_trainer_is_refused(settings, refused):
    folder = Path(settings["output_dir"]) / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 3}), encoding="utf-8")
    assert "no checkpoint of mtl-opt" in refused(settings, "resume_from_checkpoint=true")


def test_other_data_is_refused(settings, refused, tmp_path):
    settings["save_steps"] = 2
    file = tmp_path / "qa.jsonl"
    file.write_bytes(Path(settings["tasks"]["qa"]["file"]).read_bytes())
    settings["tasks"]["qa"]["file"] = str(file)
    train(config_of(settings))
    cut_back(Path(settings["output_dir"]), 2)
    file.write_bytes(file.read_bytes() * 2)
    assert "sizes" in refused(settings, "resume_from_checkpoint=true")


# --- real signals -----------------------------------------------------------------------------------------------


def start(config: str, *overrides: str) -> subprocess.Popen:
    """Start a run in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mtl_opt.cli", "train", config, *overrides]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen, number: int) -> None:
    """Wait until that many steps are logged."""
    deadline = time.monotonic() + 120
    while not path.exists() or len(path.read_bytes().splitlines()) <= number:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def long_run(settings, name):
    changes = {"lora_dropout": 0.3, "combiner": "pcgrad", "max_steps": 150, "save_steps": 7}
    return {**settings, **changes, "output_dir": str(Path(settings["output_dir"]).parent / name)}


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(settings, tmp_path):
    train(config_of(long_run(settings, "whole")))
    killed = long_run(settings, "killed")
    config = write_config(tmp_path / "c.yaml", killed)
    for moment in (20, 60):
        process = start(config, "resume_from_checkpoint=true")
        wait_for(tmp_path / "killed" / "trainer_log.jsonl", process, moment)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert not (tmp_path / "killed" / "all_results.json").exists()
    train(config_of({**killed, **RESUME}))
    assert adapter(tmp_path / "killed") == adapter(tmp_path / "whole")
    steps = [line["current_steps"] for line in log_lines(tmp_path / "killed") if "lr" in line]
    assert steps == list(range(1, 151))


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_saves_it_and_says_so(settings, tmp_path):
    train(config_of(long_run(settings, "whole")))
    stopped = long_run(settings, "stopped")
    stopped["save_steps"] = None
    config = write_config(tmp_path / "c.yaml", stopped)
    process = start(config)
    wait_for(tmp_path / "stopped" / "trainer_log.jsonl", process, 10)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    (checkpoint,) = (tmp_path / "stopped").glob("checkpoint-*")
    step = int(checkpoint.name.split("-")[1])
    assert error.splitlines()[-1] == f"mtl-opt: Stopped after step {step} of 150; `{checkpoint}` was written."
    assert log_lines(tmp_path / "stopped")[-1]["current_steps"] == step
    train(config_of({**stopped, **RESUME}))
    assert adapter(tmp_path / "stopped") == adapter(tmp_path / "whole")
