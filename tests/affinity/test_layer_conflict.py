"""Conflict of blocks: scores against literal loops, the window against the run's own."""

import math
from itertools import combinations
from pathlib import Path

import pytest
import torch
from tiny_run import config_of

from mtl_opt.affinity.layer_conflict import (
    LayerWatch,
    MeasuredConflict,
    conflicts,
    corrected_gramian,
    is_block,
    plain_name,
    read_measurements,
    train_measured,
)
from mtl_opt.affinity.share import choose_blocks
from mtl_opt.errors import InputError
from mtl_opt.training import train

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
