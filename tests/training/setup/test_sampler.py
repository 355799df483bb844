"""The sampler of a run: shares of labels, the end of the rows, shares of the tasks that are left."""

from dataclasses import replace

import pytest
from tiny_run import TASKS, config_of, rows_of, write_jsonl

from mtl_opt.errors import InputError
from mtl_opt.training.setup.data import prepare
from mtl_opt.training.setup.sampler import build_sampler

SCHEDULE = {"points": [[0, {"qa": 0.5, "摘要": 0.5, "anger": 0}], [1, {"qa": 0.2, "摘要": 0.2, "anger": 0.6}]]}
RATIOS = {"qa": 0.5, "摘要": 0.25, "anger": 0.25}


def test_stratified_batches_have_the_labels_in_their_shares(settings, tmp_path):
    rows = [{"text": f"text {i}", "label": "rare" if i % 5 == 0 else "usual"} for i in range(100)]
    settings["tasks"] = {"a": {"file": write_jsonl(tmp_path / "a.jsonl", rows)}}
    config = config_of(settings, rows_per_task=10, stratify_by="label", val_size=0)
    prepared = prepare(config)
    sampler, _ = build_sampler(config, prepared)
    seen = []
    for _ in range(10):
        drawn = sampler.draw()["a"]
        assert sum(prepared.train_rows["a"][i].label == "rare" for i in drawn) == 2
        seen += drawn
    assert sorted(seen) == list(range(100))
    settings["tasks"] = {"a": {"file": write_jsonl(tmp_path / "b.jsonl", rows_of("qa", 9))}}
    without = prepare(config_of(settings))
    with pytest.raises(InputError, match="no row has a label"):
        build_sampler(config, without)


@pytest.mark.parametrize(
    ("exhaustion", "steps"),
    [("stop_first", 2), ("stop_all", 7), ("once", 4)],  # 14, 6 and 3 rows, 2 of each in a step; 23 in all
)
def test_a_run_ends_when_its_rows_are_used_up(settings, exhaustion, steps):
    config = config_of(settings, exhaustion=exhaustion, max_steps=-1, num_train_epochs=1)
    sampler, total = build_sampler(config, prepare(config))
    assert total == steps
    for _ in range(total):
        sampler.draw()
    if exhaustion == "once":
        assert sampler.epochs() == dict.fromkeys(TASKS, 1.0)
    assert build_sampler(replace(config, max_steps=1), prepare(config))[1] == 1


def test_a_task_alone_takes_all_rows_under_every_mixing(settings):
    config = config_of(settings, mixing="ratio_schedule", mixing_args=SCHEDULE, only_tasks=["qa"])
    sampler, _ = build_sampler(config, prepare(config).only(["qa"]))
    assert [len(rows) for rows in sampler.draw().values()] == [2]


def test_ratios_of_the_tasks_that_are_left_keep_their_proportion(settings):
    config = config_of(settings, mixing="ratios", ratios=RATIOS, only_tasks=["qa", "anger"])
    sampler, _ = build_sampler(config, prepare(config).only(["qa", "anger"]))
    for _ in range(30):
        sampler.skip()
    assert sampler.drawn == {"qa": 80, "anger": 40}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"mixing": "ratios", "ratios": {"qa": 3, "摘要": 1, "anger": 0}},
            "`ratios` sum up to 4 and are taken as qa 75.0%",
        ),
        ({"mixing": "sqrt", "ratios": {"qa": 0.5, "摘要": 0.25, "anger": 0.25}}, "`mixing: sqrt` does not use them"),
    ],
)
def test_ratios_that_are_scaled_or_not_used_are_said(settings, caplog, changes, words):
    caplog.set_level("INFO")
    build_sampler(config := config_of(settings, **changes), prepare(config))
    assert words in caplog.text
