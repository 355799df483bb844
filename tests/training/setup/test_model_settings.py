"""Runs with a quantised base, 8-bit optimizers, checkpointing, rsLoRA, DoRA and torch.compile, from the YAML on."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from tiny_run import config_of, log_lines

from mtl_opt.training import train
from mtl_opt.training.run.measurement import evaluate_folder


def losses(folder):
    return [line["loss"] for line in log_lines(Path(folder)) if "loss" in line]


def tensors_of(state):
    """List the tensors of an optimizer's state of one parameter; bitsandbytes nests them."""
    found = []
    for value in state.values():
        found += tensors_of(value) if isinstance(value, dict) else [value] if torch.is_tensor(value) else []
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_bit": 4, "gradient_checkpointing": True, "optim": "paged_adamw_8bit", "bf16": True},
        {"quantization_bit": 4, "quantization_type": "fp4", "double_quantization": False},
        {"quantization_bit": 8, "optim": "adamw_bnb_8bit"},
        {"use_rslora": True, "optim": "sgd"},
        {"quantization_bit": 4, "gradient_checkpointing": True, "gradient_engine": "two_pass", "combiner": "pcgrad"},
        {"finetuning_type": "full", "gradient_checkpointing": True, "optim": "adafactor"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_run_trains_and_its_files_are_enough_to_measure_it_again(settings, changes):
    results = train(config_of({**settings, **changes}))
    assert results["train_steps"] == 4
    auto = "per_task" if "finetuning_type" in changes else "one_pass"  # the tiny model's embedding is tied
    assert results["gradient_engine"] == changes.get("gradient_engine", auto)
    again = evaluate_folder(Path(settings["output_dir"]))
    for key, value in again.items():
        assert value == pytest.approx(results[key], rel=1e-5), key


def test_dora_is_trained_by_engine_per_task_and_refused_by_one_pass(settings, refused):
    assert train(config_of({**settings, "use_dora": True}))["gradient_engine"] == "per_task"
    sentence = refused(
        {**settings, "use_dora": True, "output_dir": settings["output_dir"] + "2"}, "gradient_engine=one_pass"
    )
    assert "DoRA" in sentence
    assert "per_task" in sentence


@pytest.mark.parametrize("optim", ["adamw_bnb_8bit", "paged_adamw_8bit", "lion_8bit"])
def test_a_run_with_8_bit_states_goes_on_from_its_checkpoint_in_the_same_bits(settings, tmp_path, optim):
    settings |= {"optim": optim, "lora_rank": 128, "save_steps": 2, "lora_dropout": 0.2}  # 32 x 128: enough for 8 bits
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config_of({**settings, "output_dir": str(whole)}))
    states = torch.load(whole / "checkpoint-2" / "optimizer.pt", weights_only=True)["state"]
    tensors = [value for state in states.values() for value in tensors_of(state)]
    assert sum(value.dtype == torch.uint8 for value in tensors) > len(states) / 2
    shutil.copytree(whole / "checkpoint-2", cut / "checkpoint-2")
    train(config_of({**settings, "output_dir": str(cut), "resume_from_checkpoint": True}))
    name = "adapter_model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_checkpointing_changes_nothing_but_memory(settings, tmp_path):
    for name, flag in (("plain", False), ("checkpointed", True)):
        changes = {"gradient_checkpointing": flag, "lora_dropout": 0.2, "output_dir": str(tmp_path / name)}
        train(config_of({**settings, **changes}))
    name = "adapter_model.safetensors"
    assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "checkpointed" / name).read_bytes()


@pytest.mark.slow
def test_a_compiled_run_takes_per_task_says_why_and_ends_near_the_plain_one(settings, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    torch.compiler.reset()
    compiled = {"torch_compile": True, "torch_compile_backend": "aot_eager", "max_steps": 2}
    results = train(config_of({**settings, **compiled, "output_dir": str(tmp_path / "compiled")}))
    assert results["gradient_engine"] == "per_task"
    assert "Gradient engine per_task: the model is compiled" in caplog.text
    plain = {"gradient_engine": "per_task", "max_steps": 2, "output_dir": str(tmp_path / "plain")}
    train(config_of({**settings, **plain}))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"quantization_bit": 5}, "`quantization_bit` must be 4 or 8, got 5."),
        ({"quantization_bit": True}, "`quantization_bit` must be a whole number, got True."),
        ({"quantization_bit": 4, "finetuning_type": "full"}, "goes with `finetuning_type: lora`, got `full`"),
        ({"quantization_method": "gptq"}, "Unknown value of `quantization_method`: `gptq`."),
        ({"quantization_type": "nf5"}, "Unknown value of `quantization_type`: `nf5`. Did you mean `nf4`?"),
        ({"optim": "adamw_bnb_8bits"}, "Did you mean `adamw_bnb_8bit`?"),
        (
            {"torch_compile": True, "gradient_engine": "one_pass"},
            "goes with `gradient_engine: per_task`",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(settings, refused, changes, sentence):
    assert sentence in refused({**settings, **changes})
