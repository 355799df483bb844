"""Runs with different settings never share a table, whichever seed or method is new."""

import json
from dataclasses import asdict

import pytest
from tiny_run import write_config

from mtl_opt import cli
from mtl_opt.comparison import compare_config
from mtl_opt.comparison.grid import final_run, methods_of
from mtl_opt.comparison.rate_search import search_runs
from mtl_opt.comparison.settings_check import own_keys, refuse_other_settings
from mtl_opt.errors import InputError


def runs_of(grid, steps=None):
    config, shared = compare_config(grid)
    methods = methods_of(config, shared, ["qa"])
    finals = [
        final_run(method, seed, shared, steps=(steps or {}).get(method.name))
        for seed in config.seeds
        for method in methods
    ]
    return [*search_runs(config, methods, shared, {}), *finals]


def known_of(runs):
    lines = {}
    for run in runs:
        lines[run.name] = {
            "run": run.name, "role": run.role, "method": run.method.label, "task": run.method.task,
            "config": json.loads(json.dumps(asdict(run.config))), "provenance": {"data_hash": "abc"},
        }  # fmt: skip
    return lines


def refuse(grid, wanted, known, own=frozenset()):
    refuse_other_settings(grid["output_dir"], runs_of(wanted), known, "abc", own)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0.5), ("max_steps", 3), ("rows_per_task", 3), ("lora_rank", 4), ("optim", "sgd"),
        ("weight_decay", 0.1), ("cutoff_len", 50), ("gradient_accumulation_steps", 2), ("warmup_steps", 1),
        ("lr_scheduler_type", "cosine"), ("finetuning_type", "full"), ("num_train_epochs", 1.0),
        ("max_grad_norm", 0.0), ("max_new_tokens", 9),
    ],
)  # fmt: skip
@pytest.mark.parametrize("new", [{"seeds": [4]}, {"combiners": ["mgda"], "baselines": False}])
def test_a_new_seed_or_method_with_another_setting_is_refused(grid, key, value, new):
    known = known_of(runs_of(grid))
    refuse(grid, {**grid, **new}, known)
    with pytest.raises(InputError) as error:
        refuse(grid, {**grid, **new, key: value}, known)
    assert f"`{key}` = {known['sum-seed3']['config'][key]!r} (`" in str(error.value)
    assert repr(value) in str(error.value)


def test_other_arguments_of_the_same_method_are_refused_at_a_new_seed_and_not_those_of_another_method(grid):
    known = known_of(runs_of(grid))
    more = {**grid, "seeds": [4], "combiner_args": {"pcgrad": {"seed": 7}}}
    with pytest.raises(InputError, match="combiner_args"):
        refuse(grid, more, known)
    refuse(grid, {**grid, "combiners": ["mgda"], "sharings": ["hard", "private_layers"], "baselines": False}, known)


@pytest.mark.parametrize("axis", [{"mixings": ["balanced", "sqrt"]}, {"norm_matched": "both"},
                                  {"learning_rates": [0.001, 0.01]}])  # fmt: skip
def test_what_a_grid_varies_and_what_changes_no_number_is_not_refused(grid, axis):
    grid |= axis
    known = known_of(runs_of(grid))
    searched = own_keys(compare_config(grid)[0])
    refuse(grid, {**grid, "seeds": [3, 4], "logging_steps": 7, "save_steps": 9}, known, searched)


def test_a_rate_that_was_searched_and_steps_of_a_time_are_each_methods_own(grid):
    known = known_of(runs_of(grid, {"sum": 7, "pcgrad": 5, "single-qa": 9}))
    wanted = runs_of({**grid, "combiners": ["mgda"], "baselines": False}, {"mgda": 6})
    config, _ = compare_config({**grid, "budget": "90s"})
    refuse_other_settings("out", wanted, known, "abc", own_keys(config))
    config, _ = compare_config({**grid, "budget": "6 steps"})
    with pytest.raises(InputError, match="max_steps"):
        refuse_other_settings("out", wanted, known, "abc", own_keys(config))
    one, _ = compare_config({**grid, "learning_rates": [0.1]})
    two, _ = compare_config({**grid, "learning_rates": [0.1, 0.2]})
    assert (own_keys(one), own_keys(two)) == (frozenset(), frozenset({"learning_rate"}))


def test_other_data_are_refused_whichever_run_saw_them(grid):
    known = known_of(runs_of(grid))
    with pytest.raises(InputError, match="other data: the rows behind `sum-seed3` have changed"):
        refuse_other_settings("out", runs_of({**grid, "seeds": [4]}), known, "xyz", frozenset())


def test_lines_by_run_earlier_releases_without_a_configuration_are_taken_as_they_are(grid):
    known = {name: {"run": name, "combiner": "sum", "seed": 3} for name in known_of(runs_of(grid))}
    refuse(grid, {**grid, "learning_rate": 0.5}, known)


def test_the_command_refuses_a_new_seed_and_a_new_method_and_trains_nothing(grid, tmp_path, refused):
    grid |= {"baselines": False, "combiners": ["sum"]}
    assert cli.main(["compare", write_config(tmp_path / "config.yaml", grid)]) == 0
    assert "`learning_rate` = 0.01 (`sum-seed3`)" in refused(grid, "seeds=[4]", "learning_rate=0.5", verb="compare")
    assert "`lora_rank` = 2" in refused(grid, "combiners=[pcgrad]", "lora_rank=4", verb="compare")
    assert not (tmp_path / "网格" / "sum-seed4").exists()
    assert not (tmp_path / "网格" / "pcgrad-seed3").exists()
