"""`mtl-opt group`: clusters with known answers, configurations that run."""

import json

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from tiny_run import write_config

from mtl_opt import cli
from mtl_opt.affinity.group import cluster
from mtl_opt.training import train
from mtl_opt.training.config.run_config import train_config

QUICK = {"max_new_tokens": 1, "rows_per_task": 2}


def test_clusters_with_known_answers():
    pairs = torch.full((4, 4), -0.2)
    pairs[:2, :2] = pairs[2:, 2:] = 0.6
    assert cluster(pairs)[0] == [[0, 1], [2, 3]]
    assert cluster(torch.full((3, 3), 0.4))[0] == [[0, 1, 2]]  # all help all
    assert cluster(torch.full((3, 3), -0.4) + torch.eye(3))[0] == [[0], [1], [2]]  # nobody helps anybody
    assert cluster(pairs, 1)[0] == [[0, 1, 2, 3]]
    assert cluster(pairs, 4)[0] == [[0], [1], [2], [3]]
    one_way = torch.tensor([[0.0, 0.9, -0.5], [-0.1, 0.0, -0.5], [-0.5, -0.5, 0.0]])
    assert cluster(one_way)[0] == [[0, 1], [2]]  # the mean of both ways counts


@how(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000), st.booleans())
def test_every_clustering_is_a_partition_with_the_number_of_groups_asked_for(size, seed, holes):
    affinity = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    if holes:
        affinity[0, -1] = torch.nan
    for number in (*range(1, size + 1), None):
        groups, scores = cluster(affinity, number)
        assert sorted(task for group in groups for task in group) == list(range(size))
        assert number is None or len(groups) == number
        assert number is not None or scores[len(groups)] >= max(scores.values()) - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("by", ["cosine", "lookahead"])
def test_the_command_writes_configurations_that_run(settings, tmp_path, capsys, by):
    path = write_config(tmp_path / "config.yaml", {**settings, **QUICK, "max_steps": 20})
    assert cli.main(["group", path, "--by", by, "--groups", "2", f"output_dir={tmp_path}/组"]) == 0
    output = tmp_path / "组"
    assert "Groups: " in capsys.readouterr().out
    found = json.loads((output / "affinity.json").read_text(encoding="utf-8"))
    assert sorted(task for group in found["groups"] for task in group) == sorted(["qa", "摘要", "anger"])
    assert len(found["affinity"]) == 3
    for number, group in enumerate(found["groups"], start=1):
        own = yaml.safe_load((output / f"group-{number}.yaml").read_text(encoding="utf-8"))
        assert own["only_tasks"] == group
        results = train(train_config({**own, "max_steps": 1}))
        assert {f"eval_{task}_loss" for task in group} <= set(results)
    whole = yaml.safe_load((output / "selective.yaml").read_text(encoding="utf-8"))
    assert whole["sharing_args"]["groups"] == {"found": found["groups"]}
    results = train(train_config({**whole, "max_steps": 1}))
    alone = next(group[0] for group in found["groups"] if len(group) == 1)
    assert results[f"params_{alone}"] == results["params_shared"]


BAD = {
    "an unknown measure": (["--by", "cosin"], {}, "Unknown value of `--by`: `cosin`. Did you mean `cosine`?"),
    "no groups": (["--groups", "0"], {}, "`--groups` must be at least 1, got 0."),
    "too many groups": (["--groups", "4"], {}, "Grouping needs two tasks or more, and at most as many groups; got 3"),
    "one task": ([], {"only_tasks": ["qa"]}, "Grouping needs two tasks or more"),
    "groups that are there": (
        [],
        {"sharing": "selective", "sharing_args": {"map": {"*": "g"}, "groups": {"g": [["qa", "anger"], ["摘要"]]}}},
        "`mtl-opt group` finds groups of tasks; `sharing_args.groups` already gives some.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_group_refuses_is_one_sentence(case, settings, tmp_path, capsys):
    arguments, changes, sentence = BAD[case]
    path = write_config(tmp_path / "config.yaml", {**settings, **QUICK, **changes})
    assert cli.main(["group", path, *arguments]) == 2
    assert f"mtl-opt: error: {sentence}" in capsys.readouterr().err
