"""Runs with packed rows: the same rows and losses as padded ones, whatever gradient engine."""

from pathlib import Path

import pytest
from launch import torchrun
from safetensors.torch import load_file
from tiny_run import config_of, log_lines, write_config

from mtl_opt.training import train


def logged(folder):
    keys = ("loss_qa", "loss_摘要", "loss_anger", "grad_norm")
    return [[line[key] for key in keys] for line in log_lines(Path(folder)) if "loss_qa" in line]


@pytest.mark.parametrize(
    "changes",
    [
        {"combiner": "pcgrad"},
        {"combiner": "gradnorm", "gradient_accumulation_steps": 2, "gradient_checkpointing": True},
        {"combiner": "famo", "gradient_engine": "per_task"},
        {"finetuning_type": "full", "gradient_engine": "per_task"},
        {"combiner": "mgda", "gradient_engine": "two_pass"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_packed_run_logs_the_numbers_of_a_padded_one(settings, tmp_path, changes):
    for name, packing in (("padded", False), ("packed", True)):
        train(config_of({**settings, **changes, "packing": packing, "output_dir": str(tmp_path / name)}))
    found, wanted = logged(tmp_path / "packed"), logged(tmp_path / "padded")
    assert len(found) == 4
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


def test_a_packed_run_goes_on_from_its_checkpoint_in_the_same_bits(settings, tmp_path):
    settings |= {"packing": True, "lora_dropout": 0.2, "save_steps": 2, "combiner": "pcgrad"}
    whole = tmp_path / "whole"
    train(config_of({**settings, "output_dir": str(whole)}))
    cut = {"output_dir": str(tmp_path / "cut"), "resume_from_checkpoint": str(whole / "checkpoint-2")}
    train(config_of({**settings, **cut}))
    name = "adapter_model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"quantization_bit": 4, "gradient_checkpointing": True}], ids=["plain", "nf4"])
def test_two_processes_pack_their_shares_and_end_with_the_adapter_of_one(settings, tmp_path, changes):
    settings |= {"packing": True, "combiner": "pcgrad", **changes}
    train(config_of({**settings, "output_dir": str(tmp_path / "one")}))
    two = {**settings, "rows_per_task": 1, "output_dir": str(tmp_path / "two")}
    done = torchrun(2, "-m", "mtl_opt.cli", "train", write_config(tmp_path / "two.yaml", two))
    assert done.returncode == 0, done.stderr
    found, wanted = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("two", "one"))
    for name, tensor in wanted.items():
        assert float((found[name] - tensor).norm() / tensor.norm().clamp(min=1e-12)) < 1e-4, name


def test_a_combiner_that_deals_rows_to_halves_is_refused(settings, refused, monkeypatch):
    from mtl_opt.combiners import COMBINERS

    monkeypatch.setattr(COMBINERS["pcgrad"], "requires", "halves")
    sentence = refused({**settings, "packing": True, "combiner": "pcgrad"})
    assert sentence.startswith("`packing: true` does not go with `combiner: pcgrad`")
