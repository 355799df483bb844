"""The combiner of a run: wrappers by keys of the configuration, in one order, refused where they cannot work."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import TASKS, config_of, log_lines, mostly_slow, write_config

from mtl_opt import cli
from mtl_opt.combiners import MGDA, Denoised, Every, NormMatched, PCGrad, Scoped, Smoothed
from mtl_opt.training import train, training_step
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.setup.combiner import build_combiner
from mtl_opt.training.setup.data import prepare

WRAPPED = [
    {"combiner": "pcgrad", "scope": "layer"},
    {"combiner": "upgrad", "scope": "tensor", "norm_matched": True},
    {"combiner": "nash_mtl", "norm_matched": True},
    {"combiner": "sum", "norm_matched": True},
    {"combiner": "moco", "norm_matched": True},
    {"combiner": "famo", "smoothed": 0.5},
    {"combiner": "gradnorm", "every": 3},
    {"combiner": "pcgrad", "scope": "tensor", "smoothed": 0.5, "every": 2, "norm_matched": True},
    {"combiner": "upgrad", "denoised": 20, "smoothed": 0.5, "norm_matched": True},
    {"combiner": "modo", "smoothed": 0.5, "every": 2},
]


def chain(combiner):
    """List a combiner and what it wraps, the outermost first."""
    found = [combiner]
    while hasattr(found[-1], "inner"):
        found.append(found[-1].inner)
    return [type(one) for one in found]


def test_wrappers_stand_in_one_order_whatever_the_order_of_the_keys(settings):
    config = config_of(settings, combiner="pcgrad", norm_matched=True, scope="tensor", every=5, smoothed=0.9)
    combiner = build_combiner(config, list(TASKS))
    assert chain(combiner) == [NormMatched, Every, Smoothed, Scoped, PCGrad]
    assert (combiner.by, combiner.inner.k, combiner.inner.inner.beta) == ("tensor", 5, 0.9)
    config = config_of(settings, combiner="pcgrad", denoised=50, smoothed=0.0, every=1, seed=9)
    combiner = build_combiner(config, list(TASKS))
    assert chain(combiner) == [Every, Smoothed, Denoised, PCGrad]
    assert (combiner.requires, combiner.window, combiner.inner.inner.inner.seed) == ("window", 50, 9)
    assert all(part.tasks == TASKS for part in combiner.modules() if hasattr(part, "tasks"))


def test_without_keys_there_is_no_wrapper(settings):
    assert chain(build_combiner(config_of(settings, combiner="pcgrad"), list(TASKS))) == [PCGrad]


@pytest.mark.parametrize("changes", mostly_slow(WRAPPED, WRAPPED[-1:]), ids=str)
def test_a_wrapped_combiner_learns(settings, changes):
    train(config_of({**settings, **changes, "max_steps": 20, "eval_file": None}))
    losses = [line["loss"] for line in log_lines(Path(settings["output_dir"])) if "lr" in line]
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["scope=layer", "combiner=sum"], "requires only losses, which are the same for every block"),
        (["scope=layer", "combiner=moco"], "`MoCo` requires the rows themselves"),
        (["scope=tensor", "combiner=modo"], "`MoDo` requires two samples of the rows"),
        (["scope=rows"], "value of `scope`: `rows`"),
        (["denoised=100", "combiner=sum"], "`denoised: 100` with `combiner: sum`: `Denoised` must wrap"),
        (["denoised=100", "combiner=gradnorm"], "looks at all layers; `GradNorm` looks at 'last'"),
        (["denoised=100", "scope=layer", "combiner=pcgrad"], "requires one Gramian of a step; `Scoped` does not"),
        (["denoised=25", "combiner=pcgrad"], "`window` must be a multiple of 10, got 25"),
        (["denoised=10", "combiner=pcgrad"], "`window` must be a whole number of at least 20, got 10"),
        (["every=2", "combiner=graddrop"], "`every: 2` with `combiner: graddrop`: `Every` must wrap a combiner with w"),
        (["smoothed=0.5", "combiner=db_mtl"], "must wrap a combiner with weights; `DBMTL` has none"),
        (["norm_matched=true", "combiner=sdmgrad"], "`norm_matched: true` with `combiner: sdmgrad`: `NormMatched`"),
        (["every=0"], "`every` must be at least 1, got 0"),
        (["smoothed=1.0"], "`smoothed` must be at least 0 and less than 1, got 1.0"),
        (["norm_matched=2"], "`norm_matched` must be true or false, got 2"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(settings, refused, overrides, part):
    assert part in refused(settings, *overrides)
    assert not Path(settings["output_dir"]).exists()


def test_weights_come_from_the_window_once_a_block_of_it_is_full(settings):
    """Two steps are a block; from then on the weights are those of the window's Gramian, not of the step's own."""
    config = config_of(settings, combiner="mgda", denoised=20)
    run = build_run(config, prepare(config))
    for step in range(1, 7):
        event = training_step(run.parts, run.next_batches(), step)
        own = MGDA().weights(event.gramian)
        assert torch.allclose(event.weights, own, rtol=1e-4) is (step < 3), step


def test_a_comparison_wraps_every_method_and_no_baseline(settings, tmp_path):
    settings |= {"combiners": ["mgda", "pcgrad"], "seeds": [1], "max_steps": 2, "scope": "layer", "norm_matched": True}
    assert cli.main(["compare", write_config(tmp_path / "config.yaml", settings)]) == 0
    text = (Path(settings["output_dir"]) / "results.jsonl").read_text(encoding="utf-8")
    configs = {line["combiner"]: line["config"] for line in map(json.loads, text.splitlines())}
    for name, scope, matched in (("mgda", "layer", True), ("pcgrad", "layer", True), ("single", None, False)):
        assert (configs[name]["scope"], configs[name]["norm_matched"]) == (scope, matched)


def test_notes_reach_the_event_the_log_and_tensorboard(settings):
    changes = {"combiner": "krum", "combiner_args": {"num_byzantine": 3}, "max_steps": 5, "logging_steps": 2}
    train(config_of({**settings, **changes}))
    folder = Path(settings["output_dir"])
    sentence = "`Krum`: 3 present tasks are fewer than the 6 it needs: the step takes the mean."
    lines = [line for line in log_lines(folder) if "lr" in line]
    assert [line["notes"] for line in lines] == [{sentence: 2}, {sentence: 2}, {sentence: 1}]
    board = EventAccumulator(str(folder / "runs"), size_guidance={"tensors": 0}).Reload()
    texts = board.Tensors("train/notes/text_summary")
    assert [event.step for event in texts] == [2, 4, 5]
    assert f"2 steps: {sentence}" in texts[0].tensor_proto.string_val[0].decode()
    assert f"1 step: {sentence}" in texts[2].tensor_proto.string_val[0].decode()


def test_a_run_by_the_method_writes_no_notes(settings):
    train(config_of({**settings, "combiner": "pcgrad"}))
    assert not any("notes" in line for line in log_lines(Path(settings["output_dir"])))


def test_the_update_of_a_norm_matched_run_is_as_long_as_the_mean_gradient(settings):
    for extra in ({}, {"scope": "layer"}):
        config = config_of(settings, combiner="upgrad", norm_matched=True, **extra)
        run = build_run(config, prepare(config))
        event = training_step(run.parts, run.next_batches(), 1)
        torch.testing.assert_close(torch.tensor(event.grad_norm), event.gramian.sum().sqrt() / 3, rtol=1e-4, atol=0)


def test_roles_of_tasks_reach_a_combiner_that_knows_main_tasks(settings):
    settings["tasks"]["anger"] |= {"role": "auxiliary", "weight": 0.5}
    config = config_of(settings, combiner="auxiliary")
    run = build_run(config, prepare(config))
    assert run.parts.combiner.main == ["qa", "摘要"]
