"""`sharing_args` in a configuration: groups of tasks, gates, and sentences for what does not fit."""

import json

import pytest
from safetensors.torch import load_file
from tiny_run import config_of, write_config

from mtl_opt.cli import main
from mtl_opt.training import train

QUICK = {"max_new_tokens": 1, "rows_per_task": 1, "max_steps": 2}


def with_groups(settings):
    """Put two tasks, one with a Chinese name, into one group."""
    tasks = {task: dict(files) for task, files in settings["tasks"].items()}
    tasks["qa"]["group"] = tasks["摘要"]["group"] = "客服"
    return {**settings, "tasks": tasks}


def test_a_run_shares_by_the_groups_of_its_tasks(settings, tmp_path):
    rules = {"layers.1": "group", "layers.1.mlp.up_proj": "private"}
    results = train(config_of(with_groups(settings), **QUICK, sharing="selective", sharing_args={"map": rules}))
    names = load_file(tmp_path / "run" / "sharing.safetensors")
    assert any("layers.1.self_attn.q_proj.adapter.groups.0.lora_A" in name for name in names)
    assert any("layers.1.self_attn.q_proj.adapter.groups.1.task_A" in name for name in names)  # alone: private
    assert results["params_anger"] > results["params_qa"] == results["params_摘要"] > 0


def test_experts_take_their_arguments_from_the_configuration(settings, tmp_path):
    wanted = {"gate": "token", "private_experts": 1, "num_experts": 2}
    train(config_of(settings, **QUICK, sharing="experts", sharing_args=wanted))
    about = json.loads((tmp_path / "run" / "sharing.json").read_text(encoding="utf-8"))
    assert about["sharing_args"] == wanted


@pytest.mark.parametrize(
    ("sharing", "arguments", "sentence"),
    [
        ("selective", {"map": {"layers.1.q_prj": "private"}}, "the pattern `layers.1.q_prj` matches no layer"),
        ("selective", {"map": {"*": "组"}, "groups": {"组": [["qa"]]}}, "`groups.组` must hold every task"),
        ("sparse_experts", {"top_k": 9}, "`top_k` must be at most `num_experts`"),
        ("hydra", {"experts": 3}, "`hydra` has no argument `experts`. Allowed: num_b"),
    ],
)
def test_what_does_not_fit_ends_with_a_sentence(sharing, arguments, sentence, settings, tmp_path, capsys):
    path = write_config(tmp_path / "config.yaml", {**settings, "sharing": sharing, "sharing_args": arguments})
    assert main(["train", path]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "sharing.safetensors").exists()
