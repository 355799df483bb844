"""The configuration of a comparison: its own keys, and those it refuses."""

import pytest

from mtl_opt.comparison import compare_config
from mtl_opt.errors import InputError

BASE = {"model_name_or_path": "m", "tasks": {"qa": {"file": "qa.jsonl"}}, "output_dir": "out"}


@pytest.mark.parametrize(
    ("key", "value"), [("combiner", "sum"), ("seed", 1), ("resume_from_checkpoint", True), ("only_tasks", ["qa"])]
)
def test_compare_refuses_the_keys_of_train(key, value):
    with pytest.raises(InputError, match="mtl-opt train"):
        compare_config({**BASE, key: value})


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("combiners", ["sum", "pcgard"], "`pcgrad`"),
        ("combiners", ["sum", "sum"], "twice"),
        ("combiners", [], "list of names"),
        ("seeds", [], "whole numbers"),
        ("seeds", [1, 1], "whole numbers"),
        ("seeds", [0.5], "whole number"),
        ("seeds", [-1], "at least 0"),
        ("seeds", [2**32], "`seeds` must be"),
        ("seeds", None, "whole number"),
        ("baselines", "no", "true or false"),
        ("combiner_args", {"gradnrm": {"alpha": 1}}, "`gradnorm`"),
        ("combiner_args", {"gradnorm": 1}, "mapping"),
        ("learning_rte", 1, "`learning_rate`"),
    ],
)
def test_compare_says_what_is_wrong(key, value, part):
    with pytest.raises(InputError) as error:
        compare_config({**BASE, key: value})
    assert part in str(error.value)


def test_compare_takes_one_seed_and_one_combiner_without_brackets():
    config, shared = compare_config({**BASE, "seeds": 3, "combiners": "sum"})
    assert (config.seeds, config.combiners) == ([3], ["sum"])
    assert shared == BASE


def test_a_comparison_reads_its_own_lists_in_place_of_one_combiner_and_seed(caplog):
    one = {**BASE, "combiner": "cagrad", "combiner_args": {"c": 0.2}, "seed": 3}
    with caplog.at_level("INFO"):
        config, _ = compare_config({**one, "combiners": ["sum", "cagrad"], "seeds": [0, 1]})
    assert config.combiner_args == {"cagrad": {"c": 0.2}}
    assert config.seeds == [0, 1]
    assert "`combiner: cagrad` is not read: `combiners` is compared." in caplog.text
    assert "`seed: 3` is not read: `seeds` is compared." in caplog.text
    config, _ = compare_config({**one, "combiners": ["sum", "pcgrad"], "seeds": 2})
    assert config.combiner_args == {}
    with pytest.raises(InputError, match="`combiner` belongs to `mtl-opt train`"):
        compare_config(one)


def test_an_unknown_key_of_a_comparison_shows_names_of_both_kinds():
    with pytest.raises(InputError) as caught:
        compare_config(
            {"combinres": ["sum"], "model_name_or_path": "m", "output_dir": "o", "tasks": {"a": {"file": "f"}}}
        )
    assert str(caught.value).startswith("Unknown key `combinres`. Did you mean `combiners` or `combiner`")
    assert "`mtl-opt compare --help`" in str(caught.value)
