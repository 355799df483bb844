"""`mtl-opt share`: two runs that go on where they were, the worst block private."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_run import config_of, write_config

from mtl_opt import cli
from mtl_opt.affinity.layer_conflict import (
    read_lines,
)
from mtl_opt.affinity.share import ShareOptions, share_by_conflict
from mtl_opt.errors import InputError
from mtl_opt.training import Interrupted, train

QUICK = {"max_new_tokens": 1, "rows_per_task": 1}


def weights(folder: Path) -> bytes:
    return next(folder.glob("*.safetensors")).read_bytes()


class StopAt:
    """Ask to stop, as Ctrl-C does, in a given step of a given run."""

    def __init__(self, monkeypatch, step, folder):
        from mtl_opt.training.run import loop

        taken = loop.training_step

        def step_then_stop(parts, batches, number):
            event = taken(parts, batches, number)
            if number == step and Path(self.at()).name == folder:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGINT)
            return event

        monkeypatch.setattr(loop, "training_step", step_then_stop)
        writers = loop.Writers
        self.output = ""

        def made(run):
            self.output = run.output.output_dir
            return writers(run)

        monkeypatch.setattr(loop, "Writers", made)

    def at(self):
        return self.output


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["shared", "selective-1"])
def test_a_stopped_share_goes_on_to_the_same_results(settings, tmp_path, monkeypatch, folder):
    config = config_of(settings, **QUICK, max_steps=24, output_dir=str(tmp_path / "whole"))
    whole = share_by_conflict(config)
    config = config_of(settings, **QUICK, max_steps=24, output_dir=str(tmp_path / "parts"))
    with monkeypatch.context() as patch:
        StopAt(patch, 13, folder)
        with pytest.raises(Interrupted, match="Stopped after step 13 of 24"):
            share_by_conflict(config)
    assert not (tmp_path / "parts" / "comparison.json").exists()
    assert share_by_conflict(config) == whole
    for run in ("shared", "selective-1"):
        assert weights(tmp_path / "parts" / run) == weights(tmp_path / "whole" / run)
    lines = [read_lines(tmp_path / name / "shared" / "layer_gramians.jsonl") for name in ("whole", "parts")]
    assert lines[0] == lines[1]


def test_blocks_are_found_under_heads(settings, tmp_path, capsys):
    heads = {"anger": {"type": "classification"}}
    path = write_config(tmp_path / "config.yaml", {**settings, **QUICK, "max_steps": 2, "heads": heads})
    assert cli.main(["share", path, "--k", "1", f"output_dir={tmp_path}/out"]) == 0
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert comparison["private"][0].startswith("model.layers.")
    assert "conflict rate" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_makes_the_worst_block_private_and_compares(settings, tmp_path, capsys):
    path = write_config(tmp_path / "config.yaml", {**settings, **QUICK, "max_steps": 20})
    assert cli.main(["share", path, "--k", "1", f"output_dir={tmp_path}/结果"]) == 0
    out = capsys.readouterr().out
    output = tmp_path / "结果"
    found = json.loads((output / "layer_conflict.json").read_text(encoding="utf-8"))
    private = [block["block"] for block in found["blocks"] if block["private"]]
    assert private == [found["blocks"][0]["block"]]
    assert found["noise_corrected"]
    assert found["windows"] == 10
    assert f"{private[0]}  " in out
    assert "conflict rate" in out
    suggested = yaml.safe_load((output / "config.yaml").read_text(encoding="utf-8"))
    assert suggested["sharing"] == "selective"
    assert suggested["sharing_args"] == {"map": {private[0]: "private"}}
    about = json.loads((output / "selective-1" / "sharing.json").read_text(encoding="utf-8"))
    assert about["sharing_args"] == suggested["sharing_args"]
    comparison = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    assert comparison["steps"] == {"shared": 20, "selective": 20}
    numbers = comparison["parameters"]
    assert numbers["selective"]["shared"] < numbers["shared"]["shared"]
    assert numbers["shared"]["摘要"] == 0
    assert numbers["selective"]["摘要"] == numbers["shared"]["shared"] - numbers["selective"]["shared"]
    lines = json.loads(
        cli.main(["share", path, "--k", "1", f"output_dir={output}", "--json"]) or capsys.readouterr().out
    )
    assert lines == comparison


BAD = {
    "no blocks": (["--k", "0"], {}, "`--k` must be at least 1, got 0."),
    "no cosine": (["--threshold", "2"], {}, "`--threshold` must be a cosine from -1 to 1, got 2.0."),
    "no steps": (["--steps", "0"], {}, "`--steps` must be at least 1, got 0."),
    "too many blocks": (["--k", "9"], {}, "`k` must be at most 2, the blocks that have shared parameters."),
    "no full sharing": ([], {"sharing": "private_layers"}, "`mtl-opt share` starts from `sharing: hard`"),
    "the whole model": ([], {"finetuning_type": "full"}, "`sharing: selective` goes with `finetuning_type: lora`"),
    "one task": ([], {"only_tasks": ["qa"]}, "`mtl-opt share` needs at least two tasks"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_share_refuses_is_one_sentence(case, settings, tmp_path, capsys):
    arguments, changes, sentence = BAD[case]
    path = write_config(tmp_path / "config.yaml", {**settings, **QUICK, **changes})
    assert cli.main(["share", path, *arguments]) == 2
    assert f"mtl-opt: error: {sentence}" in capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_refused(settings):
    train(config_of(settings, **QUICK, max_steps=1))
    with pytest.raises(InputError, match="already holds a single run"):
        share_by_conflict(config_of(settings, **QUICK), ShareOptions())
