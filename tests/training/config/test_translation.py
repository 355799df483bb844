"""YAMLs of other tools: what they become, what is said, and what is still an error."""

import logging
from dataclasses import fields

import pytest
from transformers import TrainingArguments

from mtl_opt.comparison import compare_config
from mtl_opt.errors import InputError
from mtl_opt.training import train_config
from mtl_opt.training.config.run_config import TrainConfig

BASE = {"model_name_or_path": "m", "dataset": "identity,alpaca_zh_demo", "output_dir": "out"}
LLAMA_FACTORY = {
    "trust_remote_code": True, "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 8,
    "lora_target": "all", "template": "llama3", "cutoff_len": 2048, "max_samples": 1000, "overwrite_cache": True,
    "preprocessing_num_workers": 16, "dataloader_num_workers": 4, "logging_steps": 10, "save_steps": 500,
    "plot_loss": True, "overwrite_output_dir": True, "save_only_model": False, "report_to": "none",
    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "learning_rate": 1.0e-4,
    "num_train_epochs": 3.0, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "bf16": True, "ddp_timeout": 180000000,
    "resume_from_checkpoint": None, "val_size": 0.1, "per_device_eval_batch_size": 1, "eval_strategy": "steps",
    "eval_steps": 500, "eval_dataset": "alpaca_en_demo",
}  # fmt: skip


def test_a_yaml_of_llama_factory_runs_unchanged(caplog):
    caplog.set_level(logging.INFO)
    config = train_config({**BASE, **LLAMA_FACTORY})
    assert config.dataset == ["identity", "alpaca_zh_demo"]
    assert (config.warmup_steps, config.eval_steps, config.per_device_train_batch_size) == (0.1, 500, 1)
    assert (config.dataloader_num_workers, config.overwrite_cache, config.max_samples) == (4, True, 1000)
    assert "`warmup_ratio: 0.1` is read as `warmup_steps: 0.1`" in caplog.text
    assert config.plot_loss is True
    assert "not available" not in caplog.text


def test_every_training_argument_of_hugging_face_is_known():
    defaults = {}
    for spec in fields(TrainingArguments):
        if spec.name not in {f.name for f in fields(TrainConfig)} | {"output_dir"}:
            defaults[spec.name] = None
    train_config({**BASE, **defaults})


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"warmup_ratio": 0.03}, "warmup_steps", 0.03),
        ({"warmup_ratio": 0.03, "warmup_steps": 7}, "warmup_steps", 7),
        ({"eval_strategy": "no", "eval_steps": 5}, "eval_steps", None),
        ({"eval_strategy": False, "eval_steps": 5}, "eval_steps", None),  # YAML reads `no` as false
        ({"evaluation_strategy": "steps", "logging_steps": 7}, "eval_steps", 7),
        ({"eval_strategy": "epoch", "num_train_epochs": 4}, "eval_steps", 0.25),
        ({"eval_strategy": "epoch", "num_train_epochs": 1}, "eval_steps", None),
        ({"save_strategy": "no"}, "save_steps", None),
        ({"save_strategy": "epoch", "num_train_epochs": 2}, "save_steps", 0.5),
        ({"mix_strategy": "concat"}, "mixing", "proportional"),
        ({"mix_strategy": "interleave_under"}, "exhaustion", "stop_first"),
        ({"mix_strategy": "interleave_over"}, "exhaustion", "stop_all"),
        ({"mix_strategy": "interleave_once"}, "exhaustion", "once"),
        ({"interleave_probs": "0.7,0.3"}, "ratios", {"identity": 0.7, "alpaca_zh_demo": 0.3}),
        ({"mix_strategy": "interleave_under", "interleave_probs": "0.7,0.3"}, "mixing", "ratios"),
        ({"train_sampling_strategy": "group_by_length"}, "group_by_length", True),
        ({"template": "qwen3_nothink"}, "template", "chatml"),
        ({"lora_r": 4}, "lora_rank", 4),
        ({"num_epochs": 2}, "num_train_epochs", 2.0),
        ({"sequence_len": 99}, "cutoff_len", 99),
        ({"micro_batch_size": 2}, "per_device_train_batch_size", 2),
        ({"val_set_size": 0.2}, "val_size", 0.2),
        ({"train_on_inputs": True}, "train_on_prompt", True),
        ({"adapter": "lora", "lora_target_linear": True}, "lora_target", ["all"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_key_of_another_tool_is_translated(given, key, value):
    assert getattr(train_config({**BASE, **given}), key) == value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stage": "dpo"}, "Allowed: pt, sft"),
        ({"mix_strategy": "concatenate"}, "Did you mean `concat`"),
        ({"interleave_probs": "0.5,0.3,0.2"}, "3 shares for 2 data sets"),
        ({"eval_strategy": "sometimes"}, "no, steps"),
        ({"lora_r": 4, "lora_rank": 8}, "`lora_r` is another name of `lora_rank`, and they differ"),
        ({"adapter": "ia3"}, "lora, qlora"),
        ({"learning_rte": 1}, "Did you mean `learning_rate`"),
        ({"tasks": {"a": {"file": "b"}}}, "got `tasks` and `dataset`"),
        ({"streaming": True}, "`streaming` needs `max_steps`"),
        ({"tokens_per_batch": 100, "cutoff_len": 200}, "`tokens_per_batch` (100) must be at least `cutoff_len` (200)"),
        ({"ratios": {"a": 0}}, "`ratios` must give at least one task a share above 0"),
        ({"deepspeed": "ds.json"}, "DeepSpeed sums gradients before anybody can take them apart"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_an_error(given, words):
    with pytest.raises(InputError) as caught:
        train_config({**BASE, **given})
    assert words in str(caught.value)


def test_a_setting_that_asks_for_what_is_not_there_is_named(caplog):
    caplog.set_level(logging.INFO)
    train_config({**BASE, "neftune_noise_alpha": 5, "loraplus_lr_ratio": 16.0, "use_galore": False})
    assert "`neftune_noise_alpha: 5` is not available and has no effect" in caplog.text
    assert "`loraplus_lr_ratio: 16.0` is not available" in caplog.text
    assert "use_galore" not in caplog.text


def test_a_comparison_takes_the_same_keys():
    _, shared = compare_config({**BASE, "warmup_ratio": 0.1, "stage": "sft", "combiners": ["sum"]})
    assert shared["warmup_steps"] == 0.1
    assert "stage" not in shared
