"""`mtl-opt share`: scores against literal loops, the window against the run's own, runs that go on where they were."""

import json
import math
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from tiny_run import config_of, write_config

from mtl_opt import cli
from mtl_opt.affinity.layer_conflict import (
    LayerWatch,
    MeasuredConflict,
    conflicts,
    corrected_gramian,
    is_block,
    plain_name,
    read_lines,
    read_measurements,
    train_measured,
)
from mtl_opt.affinity.share import ShareOptions, choose_blocks, share_by_conflict
from mtl_opt.errors import InputError
from mtl_opt.training import Interrupted, train

QUICK = {"max_new_tokens": 1, "rows_per_task": 1}


def weights(folder: Path) -> bytes:
    return next(folder.glob("*.safetensors")).read_bytes()


def slow_score(gramians, threshold):
    """Count pair by pair, step by step."""
    below, values = 0, []
    for gramian in gramians.tolist():
        for i, j in combinations(range(len(gramian)), 2):
            if gramian[i][i] > 0 and gramian[j][j] > 0:
                values.append(max(-1, min(1, gramian[i][j] / math.sqrt(gramian[i][i]) / math.sqrt(gramian[j][j]))))
                below += values[-1] < threshold
    return below / len(values), sum(values) / len(values)


@pytest.mark.parametrize("threshold", [-0.3, 0.0, 0.2])
def test_scores_are_those_of_a_literal_loop_and_rank_the_blocks(threshold):
    rows = torch.randn(3, 7, 3, 5, dtype=torch.float64)
    rows[0, :, 1] = -rows[0, :, 0]  # block 0: two tasks point apart in every step
    rows[1, 2, 2] = 0  # block 1: a task is absent once
    blocks = {f"model.layers.{i}": rows[i] @ rows[i].mT for i in range(3)}
    none = {name: torch.empty(0, 3, 3) for name in blocks}
    found = conflicts(MeasuredConflict(["a", "b", "c"], dict.fromkeys(blocks, 10), blocks, none), threshold)
    for one in found:
        assert (one.rate, one.cosine) == pytest.approx(slow_score(blocks[one.block], threshold))
        assert (one.step_rate, one.step_cosine) == (one.rate, one.cosine)
    assert [(-one.rate, one.cosine) for one in found] == sorted((-one.rate, one.cosine) for one in found)


def test_windows_score_where_there_are_two_and_ties_go_to_the_lower_cosine():
    steps = {n: torch.eye(2, dtype=torch.float64).repeat(4, 1, 1) for n in ("layers.0", "layers.1")}
    windows = {n: torch.tensor([[[1.0, -c], [-c, 1.0]]] * 2) for n, c in (("layers.0", 0.1), ("layers.1", 0.5))}
    found = conflicts(MeasuredConflict(["a", "b"], dict.fromkeys(steps, 1), steps, windows))
    assert [one.block for one in found] == ["layers.1", "layers.0"]
    assert [(one.rate, one.step_rate) for one in found] == [(1.0, 0.0), (1.0, 0.0)]


def test_the_corrected_gramian_is_unbiased_and_falls_back_to_the_power():
    mean = torch.tensor([[0.5, 0.0, 0.2], [-0.3, 0.4, 0.0]], dtype=torch.float64)
    found = []
    for _ in range(1500):
        rows = mean[:, None] + torch.randn(2, 5, 3, dtype=torch.float64)
        sums = rows.sum(1)
        seen = torch.tensor([5.0, 5.0], dtype=torch.float64)
        product = sums @ sums.T
        unbiased = product / 25
        unbiased.diagonal().copy_((product.diagonal() - rows.square().sum((1, 2))) / 20)
        corrected = corrected_gramian(product, rows.square().sum((1, 2)), seen)
        positive = unbiased.diagonal() > 0
        assert torch.allclose(corrected.diagonal()[positive], unbiased.diagonal()[positive])
        assert torch.allclose(corrected.diagonal()[~positive], (rows.square().sum((1, 2)) / 5)[~positive])
        found.append(unbiased)
    assert torch.allclose(torch.stack(found).mean(0), mean @ mean.T, atol=0.08)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, model_folder, task_files):
    """Measure a run of 20 steps once."""
    output = tmp_path_factory.mktemp("measured") / "run"
    settings = {
        "model_name_or_path": model_folder, "tasks": task_files, "output_dir": str(output), "lora_rank": 2,
        "max_steps": 20, "cutoff_len": 24, "logging_steps": 20, "save_steps": None, "learning_rate": 0.01,
        "gradient_window": 20, **QUICK,
    }  # fmt: skip
    kept = {}

    def watch(run):
        kept["run"] = run
        return LayerWatch(run, 20)

    train(config_of(settings), watch=watch)
    return kept["run"], read_measurements(output)


def test_blocks_add_up_to_what_the_runs_own_window_estimates(measured):
    run, found = measured
    estimate = run.parts.grads.window.estimate()
    whole = torch.stack(list(found.windows.values())).sum(0)  # [windows, tasks, tasks]
    assert len(whole) == len(estimate.blocks) == 10
    apart = ~torch.eye(3, dtype=torch.bool)
    assert torch.allclose(whole[:, apart], estimate.blocks[:, apart], rtol=1e-4, atol=1e-7)
    powers = torch.stack([g.diagonal(dim1=1, dim2=2) for g in found.steps.values()]).sum(0)  # [steps, tasks]
    assert torch.allclose(powers.view(10, 2, 3).mean(1), estimate.power, rtol=1e-4)
    assert found.corrected


def test_watching_changes_nothing_of_what_is_learnt(measured, tmp_path):
    run, _ = measured
    settings = {**run.settings, "output_dir": str(tmp_path / "run"), "gradient_window": 0}
    train(config_of(settings))
    assert weights(tmp_path / "run") == weights(Path(run.output.output_dir))


def test_names_are_those_of_the_base():
    assert plain_name("base_model.model.model.layers.3") == "model.layers.3"
    assert plain_name("backbone.base_model.model.encoder.layer.1") == "encoder.layer.1"
    assert plain_name("backbone.model.layers.3") == "model.layers.3"
    assert is_block("transformer.h.11")
    assert not is_block("lm_head")


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


def test_few_steps_are_scored_by_single_steps(settings, tmp_path):
    config = config_of(settings, **QUICK)
    from mtl_opt.training.setup.data import prepare

    train_measured(config, prepare(config), tmp_path / "run", 3)
    found = read_measurements(tmp_path / "run")
    assert not found.corrected
    assert {len(steps) for steps in found.steps.values()} == {3}
    with pytest.raises(InputError, match="`k` must be at most 2, the blocks that have shared parameters"):
        choose_blocks(conflicts(found), 3)
    assert len(choose_blocks(conflicts(found), None)) == 1


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
def test_bad_input_is_one_sentence(case, settings, tmp_path, capsys):
    arguments, changes, sentence = BAD[case]
    path = write_config(tmp_path / "config.yaml", {**settings, **QUICK, **changes})
    assert cli.main(["share", path, *arguments]) == 2
    assert f"mtl-opt: error: {sentence}" in capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_refused(settings):
    train(config_of(settings, **QUICK, max_steps=1))
    with pytest.raises(InputError, match="already holds a single run"):
        share_by_conflict(config_of(settings, **QUICK), ShareOptions())
