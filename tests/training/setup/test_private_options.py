"""`tasks.NAME.{dropout, weight_decay, penalty}` act on something private to the task, or are an error in every verb."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_comparison import compare, lines_by_run
from tiny_run import config_of, mostly_slow

from mtl_opt.errors import InputError
from mtl_opt.models import SHARING
from mtl_opt.training import train
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.setup.data import prepare

CLS = {"heads": {"anger": {"type": "classification", "labels": ["yes", "no"]}}}
GRID = {"combiners": ["sum"], "seeds": [0]}


def with_option(settings, task="qa", **option):
    tasks = {name: dict(files) for name, files in settings["tasks"].items()}
    tasks[task] |= option
    return {**settings, "tasks": tasks}


@pytest.mark.parametrize("verb", ["train", "plan", "compare"])
@pytest.mark.parametrize(
    ("option", "changes", "words"),
    [
        ({"weight_decay": 0.1}, {}, "with `sharing: hard` no parameter is private to `qa`"),
        ({"dropout": 0.1}, {}, "with `sharing: hard` no adapter is private to `qa`"),
        ({"penalty": 0.1}, {}, "`sharing: hard` has no penalty; `soft` and `disentangled` have one"),
        ({"weight_decay": 0.1}, CLS, "no parameter is private to `qa`"),  # the only head is another task's
        ({"dropout": 0.1}, {"finetuning_type": "full"}, "no adapter is private to `qa`"),
        ({"penalty": 0.1}, {"sharing": "private_layers"}, "`sharing: private_layers` has no penalty"),
        ({"dropout": 0.1}, {"sharing": "hydra"}, "with `sharing: hydra` no adapter is private to `qa`"),
        ({"dropout": 0.1}, {"sharing": "selective", "sharing_args": {"map": {"*": "shared"}}}, "no adapter is private"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(settings, refused, tmp_path, verb, option, changes, words):
    given = with_option({**settings, **changes, **(GRID if verb == "compare" else {})}, **option)
    found = refused(given, verb=verb)
    ((name, value),) = option.items()
    assert f"`tasks.qa.{name}: {value}` changes nothing: " in found
    assert words in found
    assert not list(tmp_path.glob("run/**/trainer_log.jsonl"))


def test_a_penalty_of_no_penalty_is_refused(settings, refused):
    given = {**settings, "sharing": "soft", "sharing_args": {"penalty": "none"}}
    assert "`penalty: none` has no strength, and `tasks.qa.penalty` gives one" in refused(with_option(given, penalty=1))


@pytest.mark.parametrize("sharing", mostly_slow([name for name in SHARING if name != "hard"], fast=["soft", "hydra"]))
def test_an_option_that_is_taken_changes_the_run(settings, tmp_path, sharing):
    """Whatever a way of sharing does not refuse, it honours: the weights come out otherwise."""
    moving = {"rotograd": {"burn_in": 0, "learning_rate_factor": 1.0}}.get(sharing, {})
    usual = {**settings, "sharing": sharing, "sharing_args": moving, "max_steps": 4, "learning_rate": 0.1}
    taken, trained = set(), {}
    for name in (None, "dropout", "weight_decay", "penalty"):
        given = {**usual, "output_dir": str(tmp_path / str(name))}
        given = given if name is None else with_option(given, **{name: 0.9})
        try:
            train(config_of(given))
        except InputError as error:
            if f"tasks.qa.{name}: 0.9` changes nothing" not in str(error):
                raise
            continue
        taken.add(name)
        trained[name] = load_file(tmp_path / str(name) / "sharing.safetensors")
    for name in taken - {None}:
        assert any(not torch.equal(value, trained[name][key]) for key, value in trained[None].items()), name
    assert ("penalty" in taken) == SHARING[sharing].penalises


def test_a_task_alone_owns_everything(settings, tmp_path):
    given = with_option({**settings, "only_tasks": ["qa"]}, dropout=0.5, weight_decay=0.25)
    config = config_of(given)
    run = build_run(config, prepare(config).only(["qa"]))
    run.loader.close()
    assert {group["weight_decay"] for group in run.parts.optimizer.param_groups} == {0.25}
    assert {m.p for m in run.parts.model.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
    train(config)
    saved = json.loads((tmp_path / "run" / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["lora_dropout"] == 0.5


@pytest.mark.slow
def test_the_baselines_of_a_comparison_stay_beside_private_options(settings, tmp_path):
    given = with_option({**settings, **GRID, "sharing": "soft", "max_steps": 2}, dropout=0.5, penalty=1.0)
    assert compare(given, tmp_path) == 0
    assert set(lines_by_run(given)) == {"sum-seed0", "single-qa-seed0", "single-摘要-seed0", "single-anger-seed0"}
    config = Path(given["output_dir"], "single-qa-seed0", "adapter_config.json").read_text(encoding="utf-8")
    assert json.loads(config)["lora_dropout"] == 0.5
