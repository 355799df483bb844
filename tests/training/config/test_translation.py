"""YAMLs of other tools: what they become, what is said, and what is still an error."""

import logging
from dataclasses import MISSING, fields

import pytest
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from mtl_opt.comparison import compare_config
from mtl_opt.data import TEMPLATES
from mtl_opt.errors import InputError
from mtl_opt.training import train_config
from mtl_opt.training.config.comparison_keys import CompareConfig
from mtl_opt.training.config.foreign_keys import DEFAULTS, HARMLESS, REFUSED, RENAMED, TOKENIZER_TEMPLATES, TRANSLATED
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


OURS = {spec.name for cls in (TrainConfig, CompareConfig) for spec in fields(cls)}


def test_every_foreign_key_stands_in_one_table_and_is_none_of_ours():
    tables = (RENAMED, TRANSLATED, REFUSED, HARMLESS)
    keys = [key for table in tables for key in table]
    assert len(set(keys)) == len(keys)
    assert not OURS & set(keys)
    assert set(DEFAULTS) <= set(REFUSED) | set(HARMLESS)


@pytest.mark.parametrize("cls", [TrainingArguments, Seq2SeqTrainingArguments])
def test_every_training_argument_of_hugging_face_is_classified_and_passes_at_its_default(cls):
    classified = OURS | {*RENAMED, *TRANSLATED, *REFUSED, *HARMLESS}
    assert [spec.name for spec in fields(cls) if spec.name not in classified] == []
    defaults = {}
    for spec in fields(cls):
        if spec.name not in OURS:
            defaults[spec.name] = spec.default if spec.default_factory is MISSING else spec.default_factory()
    train_config({**BASE, **defaults})
    train_config({**BASE, **dict.fromkeys(defaults)})


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
        ({"sampling_strategy": "sqrt"}, "mixing", "sqrt"),
        ({"target_modules": "q_proj,v_proj"}, "lora_target", ["q_proj", "v_proj"]),
        ({"stage": "pt"}, "text_blocks", True),
        ({"streaming": True, "max_steps": 3, "mix_strategy": "interleave_under"}, "mixing", "equal"),
        ({"streaming": True, "max_steps": 3, "mix_strategy": "interleave_under"}, "exhaustion", "repeat"),
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
        ({"do_predict": True}, "`do_predict: true` without `do_train: true` trains nothing"),
        ({"do_train": False, "do_eval": True}, "`mtl-opt eval` measures a finished run"),
        ({"mix_strategy": "concat", "mixing": "equal"}, "give one or the other"),
        ({"interleave_probs": "a,b"}, "`interleave_probs` must be numbers, got 'a'"),
        ({"train_sampling_strategy": "sequential"}, "group_by_length, random"),
        ({"data_files": {"train": "a"}, "dataset": None}, "a mapping of files is `tasks`"),
        ({"deepspeed": "ds.json"}, "DeepSpeed sums gradients before anybody can take them apart"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_an_error(given, words):
    with pytest.raises(InputError) as caught:
        train_config({**BASE, **given})
    assert words in str(caught.value)


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_key_that_would_change_the_experiment_is_refused_in_one_sentence(key):
    value = {"average_tokens_across_devices": False, "ignore_pad_token_for_loss": False, "skip_special_tokens": False}
    with pytest.raises(InputError) as caught:
        train_config({**BASE, key: value.get(key, 7)})
    assert str(caught.value).startswith(f"`{key}: ")
    assert REFUSED[key] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"label_smoothing_factor": 0.0}, {"use_muon": False}, {"pissa_init": False}, {"loraplus_lr_ratio": None},
        {"num_beams": 1}, {"average_tokens_across_devices": True}, {"mixture_of_depths": None}, {"push_to_hub": False},
    ],
    ids=str,
)  # fmt: skip
def test_a_refused_key_that_asks_for_nothing_passes_without_a_word(caplog, given):
    caplog.set_level(logging.INFO)
    train_config({**BASE, **given})
    assert caplog.text == ""


def test_a_key_that_changes_nothing_is_noted(caplog):
    caplog.set_level(logging.INFO)
    train_config({**BASE, "flash_attn": "fa2", "galore_rank": 128, "report_to": "wandb", "log_level": None})
    assert "`flash_attn` is accepted and changes nothing: transformers chooses the attention" in caplog.text
    assert "`galore_rank` is accepted and changes nothing: acts only beside `use_galore`" in caplog.text
    assert "`report_to`" in caplog.text
    assert "log_level" not in caplog.text


@pytest.mark.parametrize("also", [{"stage": "sft"}, {"do_train": True}])
def test_settings_of_llama_factory_hold_nothing_out_unless_they_say_so(also, caplog):
    caplog.set_level(logging.INFO)
    assert train_config(BASE).val_size == 0.1
    assert train_config({**BASE, **also}).val_size == 0.0
    assert "`val_size` is 0, as in LLaMA-Factory" in caplog.text
    assert train_config({**BASE, **also, "val_size": 0.2}).val_size == 0.2


@pytest.mark.parametrize("template", ["qwen3", "gemma", "mistral"])
def test_a_template_of_a_model_family_is_that_of_the_tokenizer(template, caplog):
    caplog.set_level(logging.INFO)
    assert train_config({**BASE, "template": template}).template == "tokenizer"
    assert f"`template: {template}` is read as `template: tokenizer`" in caplog.text


def test_names_of_templates_are_ours_or_those_of_families():
    assert not set(TOKENIZER_TEMPLATES) & set(TEMPLATES)


def test_packing_is_always_without_sight_of_other_rows(caplog):
    caplog.set_level(logging.INFO)
    assert train_config({**BASE, "neat_packing": True}).packing is True
    assert train_config({**BASE, "packing": True, "neat_packing": False}).packing is True
    assert "`neat_packing: false` changes nothing" in caplog.text


def test_an_unknown_key_shows_at_most_five_near_names_and_where_all_are():
    with pytest.raises(InputError) as caught:
        train_config({**BASE, "lora_alfa": 16})
    assert str(caught.value).startswith("Unknown key `lora_alfa`. Did you mean `lora_alpha` or ")
    assert str(caught.value).count("`") <= 2 + 2 * 5 + 4
    assert "`mtl-opt train --help`" in str(caught.value)
    assert "warmup_steps" not in str(caught.value)


def test_tokens_that_are_kept_do_not_stop_the_run(caplog):
    caplog.set_level(logging.INFO)
    train_config({**BASE, "tokenized_path": "saves"})
    assert "LLaMA-Factory stops" not in caplog.text
    train_config({**BASE, "tokenized_path": "saves", "stage": "sft", "val_size": 0.1})
    assert "`tokenized_path` keeps tokens, and the run goes on; LLaMA-Factory stops once" in caplog.text


def test_files_are_read_below_the_folder_of_data_sets():
    given = {"data_files": "a.jsonl,b.jsonl", "dataset_dir": "数据", "model_name_or_path": "m", "output_dir": "out"}
    assert train_config(given).train_file == ["数据/a.jsonl", "数据/b.jsonl"]


def test_a_comparison_takes_the_same_keys():
    _, shared = compare_config({**BASE, "warmup_ratio": 0.1, "stage": "sft", "combiners": ["sum"]})
    assert shared["warmup_steps"] == 0.1
    assert "stage" not in shared
