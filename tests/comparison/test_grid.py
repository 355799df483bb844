"""The grid of a comparison: names, labels and settings of its runs."""

from pathlib import Path

import pytest
from tiny_comparison import compare, lines_by_run

from mtl_opt.comparison import compare_config
from mtl_opt.comparison.grid import final_run, methods_of
from mtl_opt.comparison.rate_search import search_runs


def runs_of(settings, tasks=("qa",)):
    config, shared = compare_config(settings)
    methods = methods_of(config, shared, tasks)
    finals = [final_run(method, seed, shared) for seed in config.seeds for method in methods]
    return [*search_runs(config, methods, shared, {}), *finals]


def test_every_choice_that_varies_stands_in_the_label_and_the_folder(grid):
    grid |= {
        "sharings": ["hard", "private_layers"],
        "sharing_args": {"private_layers": {"layers": 1}},
        "mixings": ["balanced", "temperature"],
        "mixing_args": {"temperature": {"temperature": 3.0}},
        "norm_matched": "both",
        "combiner_args": {"pcgrad": {"seed": 7}},
    }
    found = runs_of(grid)
    assert len(found) == 2 * 2 * 2 * 2 + 1
    by_name = {run.name: run for run in found}
    run = by_name["pcgrad-private_layers-temperature-norm_matched-seed3"]
    assert run.method.label == "pcgrad · private_layers · temperature · norm_matched"
    config = run.config
    assert (config.sharing, config.sharing_args) == ("private_layers", {"layers": 1})
    assert (config.mixing, config.mixing_args) == ("temperature", {"temperature": 3.0})
    assert (config.norm_matched, config.combiner_args) == (True, {"seed": 7})
    assert by_name["sum-hard-balanced-seed3"].config.sharing_args == {}
    single = by_name["single-qa-seed3"].config
    assert (single.sharing, single.norm_matched, single.only_tasks) == ("hard", False, ["qa"])


def test_one_value_varies_nothing_and_is_not_in_the_label(grid):
    grid |= {"sharings": ["hard"], "mixings": "sqrt", "norm_matched": True, "baselines": False}
    found = runs_of(grid)
    assert [run.name for run in found] == ["sum-seed3", "pcgrad-seed3"]
    assert all(run.config.mixing == "sqrt" and run.config.norm_matched for run in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sharings": ["hrad"]}, ["`sharings`", "`hard`"]),
        ({"mixings": ["balanced"], "mixing": "sqrt"}, ["`mixing`", "`mixings`"]),
        ({"mixings": ["sqrt"], "mixing_args": {"temperature": {}}}, ["`mixing_args`", "`temperature`"]),
        ({"learning_rates": [0.1, 0.1]}, ["`learning_rates`", "different"]),
        ({"learning_rates": [0.1, -1]}, ["`learning_rates`", "-1"]),
        ({"budget": "5 parsecs"}, ["`budget`", "5 parsecs"]),
        ({"budget": "0"}, ["`budget`"]),
        ({"jobs": 0}, ["`jobs`"]),
        ({"norm_matched": "maybe"}, ["`norm_matched`"]),
        ({"val_from_train": 0.1}, ["`val_from_train`"]),
        ({"select_by": "luck"}, ["`select_by`"]),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(grid, refused, change, words):
    sentence = refused({**grid, **change}, verb="compare")
    assert all(word in sentence for word in words)
    assert not Path(grid["output_dir"]).exists()


def test_ways_of_sharing_are_compared_end_to_end(grid, tmp_path, capsys):
    grid |= {"sharings": ["hard", "private_layers"], "sharing_args": {"private_layers": {"layers": 1}}}
    grid |= {"combiners": ["pcgrad"], "gradient_engine": "auto"}
    assert compare({**grid, "baselines": False}, tmp_path) == 0
    lines = lines_by_run(grid)
    assert lines["pcgrad-hard-seed3"]["sharing"] == "none"
    assert lines["pcgrad-private_layers-seed3"]["sharing"] == "private_layers"
    assert lines["pcgrad-private_layers-seed3"]["metrics"] != lines["pcgrad-hard-seed3"]["metrics"]
    assert "pcgrad · private_layers" in capsys.readouterr().out
