"""Settings as `--key value` beside `key=value`."""

import pytest

from mtl_opt.cli.parser import VerbParser


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--learning_rate", "1e-4"], ["learning_rate=1e-4"]),
        (["--learning-rate=1e-4"], ["learning_rate=1e-4"]),
        (["--bf16", "--max_steps", "-1"], ["bf16=true", "max_steps=-1"]),
        (["--bf16", "seed=3"], ["seed=3", "bf16=true"]),
        (["--tasks.问答.weight", "2", "combiner=pcgrad"], ["combiner=pcgrad", "tasks.问答.weight=2"]),
        (["--output_dir=a=b", "--json"], ["output_dir=a=b"]),
        (["--task_prefix", "### Task: {task}"], ["task_prefix=### Task: {task}"]),
    ],
)
def test_an_option_that_is_none_of_the_verbs_is_a_setting(words, settings):
    parser = VerbParser()
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--json", action="store_true")
    options, late = parser.parse_known_args(["a.yaml", *words])
    assert options.config == "a.yaml"
    assert [*options.overrides, *late] == settings
    assert options.json == ("--json" in words)


def test_the_configuration_may_stand_behind_settings():
    parser = VerbParser()
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args(["--output_dir", "out", "--seed=1", "a.yaml"])
    assert (options.config, options.overrides) == ("a.yaml", ["output_dir=out", "seed=1"])


def test_options_of_the_verb_win_in_either_spelling():
    parser = VerbParser()
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--k", type=int)
    options = parser.parse_args(["--max_new_tokens", "3", "--k", "2", "--max_new_token=5"])
    assert (options.max_new_tokens, options.k, options.overrides) == (3, 2, ["max_new_token=5"])


def test_a_verb_without_settings_refuses_them():
    parser = VerbParser()
    parser.add_argument("--json", action="store_true")
    with pytest.raises(SystemExit):
        parser.parse_args(["--jsn"])
