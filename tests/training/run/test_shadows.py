"""Shadow combiners: what they say is what the method would have done, and the run does not know that they are there."""

import json
from pathlib import Path

import pytest
import torch
from tiny_run import TASKS, config_of
from training.run.test_checkpoint import RESUME, adapter, cut_back

from mtl_opt.combiners import COMBINERS, MGDA, Combiner, PCGrad
from mtl_opt.errors import InputError
from mtl_opt.training import train
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.shadows import LONGEST_QUEUE, SeenStep, Shadows
from mtl_opt.training.run.step import training_step
from mtl_opt.training.setup.data import prepare

CHEAP = {name for name, cls in COMBINERS.items() if cls.requires in {"losses", "gramian"}} - {"famo", "coba"}
STATEFUL = {"uncertainty", "dwa", "imtl_l", "learning_speed", "gradnorm", "gradvac", "pcd"}


def lines_of(folder):
    return [json.loads(line) for line in (Path(folder) / "conflict.jsonl").read_text(encoding="utf-8").splitlines()]


def log_of(folder):
    return [json.loads(line) for line in (Path(folder) / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def settings(settings):
    """Watch every method that a Gramian is enough for."""
    return {key: value for key, value in settings.items() if key != "shadow_combiners"}


USED = [
    {"combiner": "gradnorm"},
    {"combiner": "pcgrad"},
    {"combiner": "gradvac"},
    {"combiner": "uncertainty", "logging_steps": 3},
    {"combiner": "famo"},
    {"combiner": "coba", "combiner_args": {"warmup": 2, "window": 4}},
    {"combiner": "modo"},
    {"combiner": "mgda", "denoised": 20},
    {"combiner": "rlw", "smoothed": 0.5, "every": 2, "norm_matched": True},
    {"combiner": "nash_mtl", "gradient_engine": "two_pass", "gradient_window": 0},
    {"combiner": "weighted", "combiner_args": {"task_weights": {"摘要": 3.0, "qa": 1.0, "anger": 0.5}}},
]


@pytest.mark.parametrize("changes", USED, ids=lambda changes: "-".join(map(str, changes.values())))
def test_the_shadow_of_the_method_in_use_does_exactly_what_the_method_does(settings, changes):
    settings |= {"max_steps": 7, "lora_dropout": 0.2, "combiner": "sum", **changes}
    name = settings["combiner"]
    train(config_of({**settings, "shadow_combiners": [name, "mean"]}))
    lines, log = lines_of(settings["output_dir"]), [row for row in log_of(settings["output_dir"]) if "lr" in row]
    assert [line["step"] for line in lines] == [row["current_steps"] for row in log]
    for line, row in zip(lines, log, strict=True):
        shadow = line["shadows"][name]
        assert shadow["note"] == ""
        assert shadow["angle"] == 0
        if settings["logging_steps"] == 1:  # otherwise the log has the mean over the steps
            assert shadow["weights"] == pytest.approx([row[f"weight_{task}"] for task in TASKS], rel=1e-7)
        assert set(line["shadows"]) == {name, "mean"}
    assert any(line["shadows"]["mean"]["weights"] != line["shadows"][name]["weights"] for line in lines)


def test_every_registered_method_that_a_gramian_is_enough_for_is_a_shadow(settings):
    train(config_of({**settings, "logging_steps": 4}))
    (line,) = lines_of(settings["output_dir"])
    assert set(line["shadows"]) == CHEAP
    assert {name for name, shadow in line["shadows"].items() if shadow["on_this_trajectory"]} == STATEFUL
    assert line["shadows"]["sum"]["angle"] == 0
    for name, shadow in line["shadows"].items():
        assert shadow["note"] == "", name
        assert len(shadow["weights"]) == len(shadow["change"]) == 3
        assert 0 <= shadow["angle"] <= 180
    assert set(line["layers"]) == {f"base_model.model.model.layers.{i}" for i in range(2)}


@pytest.mark.parametrize("combiner", ["famo", "graddrop"])
def test_a_run_learns_the_same_bits_with_and_without_them(settings, tmp_path, combiner):
    settings |= {"combiner": combiner, "lora_dropout": 0.3, "logging_steps": 2}
    off = {"shadow_combiners": "none", "layer_conflict": False, "gradient_window": 0}
    train(config_of({**settings, "output_dir": str(tmp_path / "with")}))
    train(config_of({**settings, **off, "output_dir": str(tmp_path / "without")}))
    assert adapter(tmp_path / "with") == adapter(tmp_path / "without")
    assert all(line["shadows"] is None and line["layers"] is None for line in lines_of(tmp_path / "without"))


@pytest.mark.parametrize("changes", [{"combiner": "pcgrad"}, {"combiner": "famo"}])
def test_a_resumed_run_writes_the_lines_that_the_whole_run_wrote(settings, tmp_path, changes):
    settings |= {**changes, "max_steps": 6, "save_steps": 1, "logging_steps": 2, "gradient_window": 20}
    train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    wanted = lines_of(tmp_path / "whole")
    assert [line["step"] for line in wanted] == [2, 4, 6]
    assert wanted[0]["corrected"] is None
    assert wanted[-1]["corrected"]["steps"] == 6
    cut_back(tmp_path / "whole", 2)
    train(config_of({**settings, **RESUME, "output_dir": str(tmp_path / "whole")}))
    assert lines_of(tmp_path / "whole") == wanted


def test_between_two_log_lines_a_checkpoint_keeps_what_shadows_have_seen(settings, tmp_path):
    settings |= {"combiner": "sum", "max_steps": 6, "save_steps": 1, "logging_steps": 6}
    train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    wanted = lines_of(tmp_path / "whole")[0]["shadows"]
    cut_back(tmp_path / "whole", 4)
    train(config_of({**settings, **RESUME, "output_dir": str(tmp_path / "whole")}))
    assert lines_of(tmp_path / "whole")[0]["shadows"] == wanted


class Failing(PCGrad):
    """Fails in every second step."""

    calls = 0

    def weights(self, gramian, losses=None, *, tasks=None):
        self.calls += 1
        if self.calls % 2 == 0:
            raise ZeroDivisionError("这里不行")
        return super().weights(gramian, losses, tasks=tasks)


class NotFinite(PCGrad):
    def weights(self, gramian, losses=None, *, tasks=None):
        return super().weights(gramian, losses, tasks=tasks) * torch.nan


def seen(step=0):
    rows = torch.randn(3, 5, generator=torch.Generator().manual_seed(step))
    return SeenStep([0, 1, 2], torch.ones(3), {"gramian": rows @ rows.T})


def bound(combiner: Combiner) -> Combiner:
    combiner.bind(TASKS)
    return combiner


def test_a_shadow_that_fails_says_so_and_the_others_go_on():
    shadows = Shadows({"bad": bound(Failing()), "nan": bound(NotFinite()), "good": bound(MGDA())}, 3, used="bad")
    shadows.shadows["bad"].combiner.calls = 1
    shadows.see(seen())
    found = shadows.read()
    assert found["bad"].weights is None
    assert found["bad"].note == "ZeroDivisionError: 这里不行"
    assert found["nan"].weights is None
    assert found["nan"].note == "The weights are not finite."
    assert found["good"].weights is not None
    assert found["good"].note == ""
    shadows.see(seen(1))
    assert shadows.read()["bad"].note == ""  # a note is said once


def test_a_shadow_that_falls_back_says_so_without_a_warning():
    shadows = Shadows({"krum": bound(COMBINERS["krum"](num_byzantine=1))}, 3)
    shadows.see(seen())
    found = shadows.read()["krum"]
    assert found.weights.tolist() == pytest.approx([1 / 3] * 3)
    assert "the step takes the mean" in found.note


def test_shadows_touch_no_random_numbers_but_their_own():
    before = torch.get_rng_state()
    shadows = Shadows({name: bound(COMBINERS[name]()) for name in sorted(CHEAP - {"gradnorm"})}, 3, used="pcgrad")
    for step in range(3):
        shadows.see(seen(step))
    shadows.read()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_queue_that_is_never_read_stays_short():
    shadows = Shadows({"pcgrad": bound(PCGrad())}, 3, used="pcgrad")
    for step in range(3 * LONGEST_QUEUE):
        shadows.see(seen(step))
    assert len(shadows.queue) <= LONGEST_QUEUE


def test_what_nobody_learns_from_is_not_kept():
    for combiners in ({}, {"pcgrad": bound(PCGrad())}):
        shadows = Shadows(combiners, 3)
        shadows.observe("batch", torch.ones(3), [0, 1, 2])
        assert shadows.queue == []


def test_absent_tasks_have_weight_0(settings):
    run = build_run(config_of({**settings, "combiner": "pcgrad"}), prepare(config_of(settings)))
    batch = run.next_batches()[0]
    kept = (batch.task_ids != 1).nonzero().squeeze(1)
    few = type(batch)(batch.input_ids[kept], batch.attention_mask[kept], batch.labels[kept], batch.task_ids[kept])
    event = training_step(run.parts, [few], 1)
    assert set(event.shadows) == CHEAP
    for name, shadow in event.shadows.items():
        assert shadow.weights is not None, (name, shadow.note)
        assert shadow.weights[1] == 0


class TestMonitorOnly:
    def test_the_update_is_the_plain_sum_and_the_combiner_is_watched(self, settings, tmp_path):
        settings |= {"lora_dropout": 0.3, "max_steps": 5}
        only = {"monitor_only": True, "combiner": "gradnorm", "output_dir": str(tmp_path / "only")}
        train(config_of({**settings, **only, "shadow_combiners": "none"}))
        train(config_of({**settings, "combiner": "sum", "output_dir": str(tmp_path / "sum")}))
        assert adapter(tmp_path / "only") == adapter(tmp_path / "sum")
        wanted = [line["shadows"]["gradnorm"] for line in lines_of(tmp_path / "sum")]
        assert [line["shadows"]["gradnorm"] for line in lines_of(tmp_path / "only")] == wanted
        assert all(set(line["shadows"]) == {"gradnorm"} for line in lines_of(tmp_path / "only"))
        assert any(shadow["angle"] > 0 for shadow in wanted)
        assert all(row["weight_摘要"] == 1 for row in log_of(tmp_path / "only") if "lr" in row)

    def test_a_comparison_would_compare_nothing(self, settings, refused):
        assert "`monitor_only` belongs to `mtl-opt train`" in refused(
            {**settings, "monitor_only": True}, verb="compare"
        )

    def test_a_method_that_observes_is_shown_what_it_observes(self, settings):
        train(config_of({**settings, "monitor_only": True, "combiner": "famo"}))
        weights = [line["shadows"]["famo"]["weights"] for line in lines_of(settings["output_dir"])]
        assert weights[0] != weights[-1]

    def test_wrappers_are_watched_with_it(self, settings):
        train(config_of({**settings, "monitor_only": True, "combiner": "sum", "norm_matched": True}))
        for line in lines_of(settings["output_dir"]):
            assert line["shadows"]["sum"]["weights"] == pytest.approx([1 / 3] * 3, rel=1e-5)

    @pytest.mark.parametrize(
        ("changes", "named"),
        [({"combiner": "graddrop"}, "combiner: graddrop"), ({"combiner": "pcgrad", "scope": "layer"}, "scope: layer")],
    )
    def test_what_needs_more_than_the_gramian_is_refused(self, settings, refused, changes, named):
        assert f"`{named}` needs more" in refused({**settings, **changes, "monitor_only": True})


def test_a_scoped_method_is_shadowed_without_its_scope(settings):
    train(config_of({**settings, "combiner": "pcgrad", "scope": "layer"}))
    for line in lines_of(settings["output_dir"]):
        assert line["shadows"]["pcgrad"]["angle"] is not None
        assert None not in line["shares"]


def test_an_update_without_weights_has_angles(settings):
    train(config_of({**settings, "combiner": "graddrop"}))
    for line in lines_of(settings["output_dir"]):
        assert 0 < line["shadows"]["sum"]["angle"] < 90
        assert 0 < sum(line["shares"]) <= 1


def test_a_single_task_has_no_shadows(settings):
    train(config_of({**settings, "only_tasks": ["摘要"]}))
    for line in lines_of(settings["output_dir"]):
        assert line["shadows"] is None
        assert line["tasks"] == ["摘要"]
        assert line["condition_number"] == 1
        assert line["conflict_rate"] is None


def test_unknown_and_unsuitable_names_are_one_sentence(settings, refused):
    assert "pcgrad" in refused({**settings, "shadow_combiners": ["pcgard"]})
    assert "`graddrop` needs more than the Gramian" in refused({**settings, "shadow_combiners": ["sum", "graddrop"]})
    assert "`famo` measures losses again" in refused({**settings, "shadow_combiners": ["famo"]})
    with pytest.raises(InputError, match="names something twice"):
        config_of({**settings, "shadow_combiners": "sum, sum"})
    assert config_of({**settings, "shadow_combiners": "none"}).shadow_combiners == []
