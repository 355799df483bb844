"""Runs with every way of sharing: they learn, count, resume bit by bit and are measured again from their files."""

import json
from pathlib import Path

import pytest
import torch
from launch import torchrun
from safetensors.torch import load_file
from training.tiny_run import config_of, write_config

from mtl_opt.errors import InputError
from mtl_opt.models import SHARING
from mtl_opt.training import train
from mtl_opt.training.evaluate import evaluate_folder
from mtl_opt.training.plan import plan

NAMES = [name for name in SHARING if name != "hard"]
QUICK = {"max_new_tokens": 1, "rows_per_task": 1}


def weights(folder) -> bytes:
    return (Path(folder) / "sharing.safetensors").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_run_learns_counts_resumes_and_is_measured_again(name, settings, tmp_path):
    config = config_of(settings, **QUICK, sharing=name, save_steps=2, gradient_checkpointing=True)
    results = train(config)
    about = json.loads((tmp_path / "run" / "sharing.json").read_text(encoding="utf-8"))
    assert about["sharing"] == name
    assert about["tasks"] == ["qa", "摘要", "anger"]
    assert results["params_shared"] + sum(results[f"params_{task}"] for task in about["tasks"]) > 0
    again = evaluate_folder(tmp_path / "run")
    assert again == {key: results[key] for key in again}
    resumed = config_of(
        settings, **QUICK, sharing=name, save_steps=2, gradient_checkpointing=True, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"),
    )  # fmt: skip
    train(resumed)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    assert weights(tmp_path / "run") != weights(tmp_path / "run" / "checkpoint-2")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_a_run_on_a_4_bit_base_lowers_the_losses(name, settings):
    results = train(config_of(settings, sharing=name, quantization_bit=4, max_steps=12, rows_per_task=2, bf16=True))
    for task in ("qa", "摘要"):
        assert results[f"eval_{task}_loss"] < results[f"before_eval_{task}_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_counts_what_a_run_trains(name, settings):
    config = config_of(settings, sharing=name)
    found = plan(config)
    results = train(config_of(settings, **QUICK, sharing=name, max_steps=1))
    assert found.shared == results["params_shared"]
    assert found.private == sum(results[f"params_{task}"] for task in ("qa", "摘要", "anger"))


def test_private_parameters_take_the_weight_decay_of_their_task(settings, tmp_path):
    def final(decay):
        tasks = {task: dict(files) for task, files in settings["tasks"].items()}
        tasks["摘要"]["weight_decay"] = decay
        folder = tmp_path / f"decay{decay}"
        train(config_of(settings, **QUICK, sharing="private_layers", tasks=tasks, output_dir=str(folder)))
        return load_file(folder / "sharing.safetensors")

    plain, decayed = final(0.0), final(50.0)
    for name, value in plain.items():
        own = ".task_A.1" in name or ".task_B.1" in name
        if own and ".task_A" in name:
            assert float(decayed[name].norm()) < 0.9 * float(value.norm())
        elif ".task_A.0" in name:
            assert float(decayed[name].norm()) > 0.9 * float(value.norm())


def test_weights_of_other_tasks_are_refused(settings, tmp_path):
    train(config_of(settings, **QUICK, sharing="private_layers", max_steps=2, save_steps=1))
    folder = tmp_path / "run"
    about = json.loads((folder / "sharing.json").read_text(encoding="utf-8"))
    (folder / "sharing.json").write_text(json.dumps(about | {"tasks": ["a", "b"]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"was saved for tasks \['a', 'b'\]"):
        evaluate_folder(folder)


@pytest.mark.parametrize("key", [{"use_dora": True, "gradient_engine": "per_task"}, {"finetuning_type": "full"}])
def test_what_does_not_go_with_private_adapters_is_refused(key, settings):
    with pytest.raises(InputError, match="`sharing: private_layers` goes with"):
        config_of(settings, sharing="private_layers", **key)


@pytest.mark.parametrize("name", NAMES)
def test_packed_rows_reach_their_own_parameters(name, settings):
    results = train(config_of(settings, **QUICK, sharing=name, packing=True, max_steps=2))
    assert results["gradient_engine"] == "one_pass"


@pytest.mark.slow
def test_two_processes_with_private_parameters_learn_what_one_does(settings, tmp_path):
    changes = {**QUICK, "sharing": "private_layers", "combiner": "pcgrad"}
    train(config_of(settings, **{**changes, "rows_per_task": 2}))
    path = write_config(
        tmp_path / "two.yaml", {**settings, **changes, "rows_per_task": 1, "output_dir": str(tmp_path / "two")}
    )
    done = torchrun(2, "-m", "mtl_opt.cli", "train", path)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / folder / "sharing.safetensors") for folder in ("run", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
