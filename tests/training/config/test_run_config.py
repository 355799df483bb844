"""The configuration of a run: defaults, values as people write them, and sentences for those that are not allowed."""

from pathlib import Path

import pytest

from mtl_opt.errors import InputError
from mtl_opt.training import read_yaml, train_config
from mtl_opt.training.config.run_config import to_yaml

BASE = {"model_name_or_path": "m", "tasks": {"qa": {"file": "qa.jsonl"}}, "output_dir": "out"}


def test_defaults_are_those_of_the_yaml_conventions():
    config = train_config(BASE)
    assert (config.finetuning_type, config.lora_rank, config.lora_alpha, config.lora_target) == (
        "lora",
        8,
        None,
        ["all"],
    )
    assert (config.combiner, config.gradient_engine, config.seed, config.max_steps) == ("sum", "auto", 42, -1)
    assert config.eval_steps is None
    assert config.resume_from_checkpoint is False


def test_defaults_of_two_configurations_share_no_list():
    first, second = train_config(BASE), train_config(BASE)
    first.lora_target.append("x")
    first.combiner_args["x"] = 1
    assert second.lora_target == ["all"]
    assert second.combiner_args == {}


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", "5e-5", 5e-5),
        ("adam_epsilon", "1e-8", 1e-8),
        ("max_steps", "20", 20),
        ("max_steps", 20.0, 20),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("save_steps", None, None),
        ("eval_steps", None, None),
        ("lora_alpha", None, None),
        ("eval_file", None, None),
        ("save_total_limit", None, None),
        ("only_tasks", None, None),
        ("lora_target", "q_proj,v_proj", ["q_proj", "v_proj"]),
        ("lora_target", "q_proj, v_proj", ["q_proj", "v_proj"]),
        ("lora_target", ["q_proj"], ["q_proj"]),
        ("only_tasks", "qa", ["qa"]),
        ("warmup_steps", 0.1, 0.1),
        ("resume_from_checkpoint", True, True),
        ("resume_from_checkpoint", None, None),  # what the YAMLs of LLaMA-Factory say for false
        ("resume_from_checkpoint", "out/checkpoint-3", "out/checkpoint-3"),
    ],
)
def test_a_value_is_read_as_people_write_it(key, given, value):
    found = getattr(train_config({**BASE, key: given}), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("learning_rate", 0, "greater than 0"),
        ("learning_rate", -1, "at least 0"),
        ("learning_rate", 1e38, "at most"),
        ("learning_rate", float("nan"), "must be a number"),
        ("learning_rate", float("inf"), "must be a number"),
        ("learning_rate", ".inf", "must be a number"),
        ("learning_rate", "nan", "must be a number"),
        ("learning_rate", "fast", "got 'fast'"),
        ("learning_rate", [1e-4], "must be a number"),
        ("learning_rate", True, "must be a number"),
        ("learning_rate", None, "must be a number"),
        ("max_steps", 10**400, "must be a whole number"),
        ("max_steps", 2.5, "whole number"),
        ("max_steps", 0, "at least 1"),
        ("max_steps", -2, "at least -1"),
        ("rows_per_task", 0, "at least 1"),
        ("rows_per_task", "four", "whole number"),
        ("rows_per_task", None, "whole number"),
        ("gradient_accumulation_steps", 0, "at least 1"),
        ("cutoff_len", 1, "at least 2"),
        ("lora_dropout", 1, "less than 1"),
        ("lora_dropout", -0.1, "at least 0"),
        ("lora_rank", 0, "at least 1"),
        ("adam_beta2", 1.0, "less than 1"),
        ("weight_decay", -1, "at least 0"),
        ("max_grad_norm", -1, "at least 0"),
        ("warmup_steps", -1, "at least 0"),
        ("num_train_epochs", 0, "greater than 0"),
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "at most"),
        ("logging_steps", 0, "at least 1"),
        ("logging_steps", None, "whole number"),
        ("save_steps", 0, "at least 1"),
        ("bf16", "yes", "true or false"),
        ("bf16", 1, "true or false"),
        ("template", "chatlm", "`chatml`"),
        ("template", None, "Unknown value of `template`"),
        ("finetuning_type", "Lora", "`lora`"),
        ("gradient_engine", "onepass", "`one_pass`"),
        ("lr_scheduler_type", "cosin", "`cosine`"),
        ("combiner", "pc_grad", "`pcgrad`"),
        ("combiner", ["sum"], "Unknown value of `combiner`"),
        ("combiner_args", [1], "mapping"),
        ("output_dir", 3, "non-empty text"),
        ("output_dir", " ", "non-empty text"),
        ("output_dir", None, "`output_dir` is missing"),
        ("model_name_or_path", None, "`model_name_or_path` is missing"),
        ("resume_from_checkpoint", 3, "true or false"),
        ("lora_target", [], "list of names"),
        ("lora_target", "q_proj,,v_proj", "list of names"),
        ("lora_target", {"q_proj": 1}, "list of names"),
        ("lora_target", ["q_proj", "q_proj"], "twice"),
        ("only_tasks", [], "list of names"),
        ("tasks", {}, "at least one task"),
        ("tasks", ["qa"], "mapping"),
        ("tasks", {"qa": "qa.jsonl"}, "`tasks.qa` must be a mapping"),
        ("tasks", {"qa": {}}, "`tasks.qa.file`"),
        ("tasks", {"qa": {"file": 3}}, "`tasks.qa.file`"),
        ("tasks", {"qa": {"file": "a", "eval_file": 3}}, "`tasks.qa.eval_file`"),
        ("tasks", {"qa": {"file": "a", "eval_flie": "b"}}, "`eval_file`"),
        ("tasks", {"qa": {"file": "a", "weight": -1}}, "`tasks.qa.weight`"),
        ("tasks", {"qa": {"file": "a", "weight": "much"}}, "`tasks.qa.weight`"),
        ("tasks", {"qa": {"file": "a", "weight": float("inf")}}, "`tasks.qa.weight`"),
        ("train_file", "all.jsonl", "not both"),
        ("eval_file", "all.jsonl", "goes with `train_file`"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(key, value, part):
    with pytest.raises(InputError) as error:
        train_config({**BASE, key: value})
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_text_as_task_weight_becomes_a_number():
    config = train_config({**BASE, "tasks": {"qa": {"file": "a", "weight": "5e-1"}}})
    assert config.tasks == {"qa": {"file": "a", "weight": 0.5}}


@pytest.mark.parametrize("key", ["model_name_or_path", "output_dir", "tasks"])
def test_a_missing_key_is_named(key):
    with pytest.raises(InputError, match=f"`{key}`"):
        train_config({name: value for name, value in BASE.items() if name != key})


def test_an_unknown_key_gets_the_nearest_name():
    with pytest.raises(InputError, match="Did you mean `learning_rate`"):
        train_config({**BASE, "learning_rte": 1})


@pytest.mark.parametrize("key", ["combiners", "seeds", "baselines"])
def test_train_refuses_the_keys_of_compare(key):
    with pytest.raises(InputError, match="mtl-opt compare"):
        train_config({**BASE, key: True})


def test_a_configuration_survives_writing_and_reading(tmp_path: Path):
    tasks = {"摘要": {"file": "数据/摘要.jsonl", "weight": 2.0}, "true": {"file": "b", "eval_file": "c"}}
    config = train_config({**BASE, "tasks": tasks, "combiner": "weighted", "learning_rate": "3e-5", "lora_alpha": 7})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert "摘要" in path.read_text(encoding="utf-8")
    assert train_config(read_yaml(path, [])) == config
