"""Reading a YAML file and the `key=value` arguments that override it."""

from pathlib import Path

import pytest

from mtl_opt.errors import InputError
from mtl_opt.training import override, read_yaml


def test_overrides_are_read_as_yaml_and_reach_into_mappings():
    settings = {"tasks": {"qa": {"file": "a", "weight": 1}}, "seed": 1}
    changed = override(settings, ["tasks.qa.weight=2", "tasks.摘要.file=b", "seeds=[0, 1]", "bf16=true", "save_steps="])
    assert changed["tasks"] == {"qa": {"file": "a", "weight": 2}, "摘要": {"file": "b"}}
    assert (changed["seeds"], changed["bf16"], changed["save_steps"]) == ([0, 1], True, None)
    assert settings == {"tasks": {"qa": {"file": "a", "weight": 1}}, "seed": 1}


def test_a_value_may_hold_equal_signs():
    assert override({}, ["output_dir=a=b"]) == {"output_dir": "a=b"}


@pytest.mark.parametrize("argument", ["seed", "=3", "seed=[1", "seed=2024-13-45", "seed=!!int x"])
def test_a_bad_override_is_one_sentence(argument):
    with pytest.raises(InputError) as error:
        override({}, [argument])
    assert "\n" not in str(error.value)


def test_a_number_as_task_name_is_the_same_in_file_and_override():
    changed = override({"tasks": {1: {"file": "a", "eval_file": "b"}}}, ["tasks.1.weight=2"])
    assert changed == {"tasks": {"1": {"file": "a", "eval_file": "b", "weight": 2}}}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "mapping"),
        (b"- a\n- b\n", "got list"),
        (b"seed", "got str"),
        (b"a: [1\n", "no valid YAML"),
        (b"a: b: c", "no valid YAML"),
        (b"a: 2024-13-45", "no valid YAML"),
        (b"a: \xff\xfe", "cannot be read"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path: Path, content, part):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_yaml(path, [])
    assert part in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "part"), [("absent.yaml", "no configuration file"), ("", "cannot be read")])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name, part):
    with pytest.raises(InputError, match=part):
        read_yaml(tmp_path / name, [])


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("tasks:\n  问答: {file: a.jsonl}\n  问答: {file: b.jsonl}\n", encoding="utf-8")
    with pytest.raises(InputError, match="`问答` stands twice, line 3"):
        read_yaml(path, [])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("task_prefix=### Task: {task}", "### Task: {task}"),
        ("task_prefix=Task: {task}", "Task: {task}"),
        ("task_prefix='### Task: {task}'", "### Task: {task}"),
        ("task_prefix=null", None),
        ("output_dir=runs/a #2", "runs/a #2"),
        ("output_dir=#1", "#1"),
        ("output_dir='runs/a #2'", "runs/a #2"),
        ("seed=1", 1),
        ("seed=1 # the first", 1),
        ("bf16=true", True),
        ("seeds=[0, 1]", [0, 1]),
        ("tasks={qa: {file: '#a'}}", {"qa": {"file": "#a"}}),
        ("mixing_args=temperature: 2", {"temperature": 2}),
        ("save_steps=", None),
    ],
)
def test_a_value_keeps_what_stands_behind_a_hash(argument, value):
    assert override({}, [argument]) == {argument.partition("=")[0]: value}
