"""Training goes on from an adapter: shape and weights are taken from it, and what differs is an error."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_run import config_of, log_lines, mostly_slow
from transformers import AutoModelForCausalLM

from mtl_opt.deploy import ExportOptions, export
from mtl_opt.errors import InputError
from mtl_opt.training import train

CLS = {"heads": {"anger": {"type": "classification", "labels": ["yes", "no"]}}}


def without_shape(settings, folder, **changes):
    """Take the settings of a run that goes on from a folder and names no rank."""
    return {k: v for k, v in settings.items() if k != "lora_rank"} | {"adapter_name_or_path": str(folder), **changes}


def metrics(results, prefix=""):
    start = f"{prefix}eval_"
    return {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(start)}


@pytest.fixture
def plain_adapter(settings, tmp_path) -> Path:
    """Save an adapter that plain peft has made, of two of the layers and with another rank in one."""
    base = AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"])
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}, init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    get_peft_model(base, config).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def edited(folder: Path, copy: Path, **changes) -> Path:
    """Copy an adapter with another configuration."""
    shutil.copytree(folder, copy)
    path = copy / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            {},
            {"use_rslora": True, "lora_alpha": 6},
            {"use_dora": True},
            {"sharing": "private_layers"},
            {"sharing": "mtl_lora", **CLS},
            CLS,
            {"quantization_bit": 4},
        ],
        fast=[{}, {"sharing": "mtl_lora", **CLS}],
    ),
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_training_goes_on_where_the_adapter_stands(settings, tmp_path, changes):
    first = train(config_of({**settings, **changes}))
    again = without_shape(settings, tmp_path / "run", output_dir=str(tmp_path / "next"), save_steps=2)
    again |= {key: value for key, value in changes.items() if key not in {"use_rslora", "lora_alpha", "use_dora"}}
    config = config_of(again)
    assert (config.lora_rank, config.lora_alpha) == (2, changes.get("lora_alpha", 4))
    assert (config.use_rslora, config.use_dora) == ("use_rslora" in changes, "use_dora" in changes)
    second = train(config)
    assert metrics(second, "before_") == pytest.approx(metrics(first), abs=1e-6)
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "next").glob("*.safetensors")}
    shutil.rmtree(tmp_path / "next" / "checkpoint-4")
    (tmp_path / "next" / "all_results.json").unlink()
    third = train(config_of({**again, "resume_from_checkpoint": True}))
    assert metrics(third) == metrics(second)
    assert {path.name: path.read_bytes() for path in (tmp_path / "next").glob("*.safetensors")} == wanted


def test_an_adapter_of_plain_peft_keeps_its_shape(settings, tmp_path, plain_adapter):
    start = load_file(plain_adapter / "adapter_model.safetensors")
    config = config_of(without_shape(settings, plain_adapter, learning_rate=1e-9, lora_dropout=0.1))
    assert (config.lora_rank, config.lora_alpha, config.lora_target) == (3, 5, ["q_proj", "v_proj"])
    train(config)
    found = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert found.keys() == start.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, start[name], atol=1e-6, rtol=0)
    saved = json.loads((tmp_path / "run" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["rank_pattern"], saved["lora_dropout"]) == ({"v_proj": 2}, 0.1)
    assert len([line for line in log_lines(tmp_path / "run") if "lr" in line]) == 4
    shutil.rmtree(plain_adapter)
    export(tmp_path / "run", ExportOptions(str(tmp_path / "out")))  # the run needs it no more


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter_name_or_path": "nowhere/at/all"}, "there is no folder `nowhere/at/all`"),
        ({"lora_rank": 8}, "`lora_rank: 8` contradicts `adapter_name_or_path: "),
        ({"lora_alpha": 6}, "`lora_alpha: 6` contradicts"),
        ({"lora_target": ["q_proj"]}, "`lora_target: ['q_proj']` contradicts"),
        ({"lora_target": "all"}, "`lora_target: all` contradicts"),
        ({"use_dora": True}, "`use_dora: True` contradicts"),
        (
            {"create_new_adapter": True},
            "`create_new_adapter: true` would train an adapter of a base that is on no disk",
        ),
        ({"finetuning_type": "full"}, "goes with `finetuning_type: lora`, got `full`"),
        ({"sharing": "private_layers"}, "holds no run with `sharing: private_layers`"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "plan"])
def test_what_contradicts_the_adapter_is_refused(settings, refused, plain_adapter, tmp_path, changes, words, verb):
    assert words in refused(without_shape(settings, plain_adapter, **changes), verb=verb)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_model_name_or_path": "some/other-model"}, "was trained on `some/other-model`, not on"),
        ({"r": 4}, "does not fit the model"),
        ({"target_modules": ["q_proj", "o_proj"], "rank_pattern": {}}, "does not fit the model"),
        ({"modules_to_save": ["lm_head"]}, "has `modules_to_save: ['lm_head']`"),
        ({"bias": "all"}, "has `bias: all`"),
    ],
)
def test_an_adapter_of_something_else_is_refused(settings, refused, plain_adapter, tmp_path, changes, words):
    folder = edited(plain_adapter, tmp_path / "edited", **changes)
    assert words in refused(without_shape(settings, folder))


def test_a_folder_without_weights_and_one_of_a_whole_run_are_refused(settings, refused, plain_adapter, tmp_path):
    (plain_adapter / "adapter_model.safetensors").unlink()
    assert "does not fit the model" in refused(without_shape(settings, plain_adapter))
    assert "holds no adapter of peft" in refused(without_shape(settings, settings["model_name_or_path"]))
    IA3Config(target_modules=["k_proj"], feedforward_modules=[]).save_pretrained(tmp_path / "ia3")
    assert "of the kind IA3, and only LORA goes on" in refused(without_shape(settings, tmp_path / "ia3"))
    train(config_of({**settings, "sharing": "private_layers", "max_steps": 1}))
    words = refused(without_shape(settings, tmp_path / "run", output_dir=str(tmp_path / "next")))
    assert "was saved with `sharing: private_layers`, not `hard`; a folder below its `adapters/` holds one" in words
    other = config_of(
        without_shape(
            settings, tmp_path / "run", sharing="private_layers", only_tasks=["qa"], output_dir=str(tmp_path / "next")
        )
    )
    with pytest.raises(InputError, match="these are"):
        train(other)


def test_a_base_that_was_copied_is_the_same_base(settings, plain_adapter, tmp_path):
    copy = tmp_path / "a copy"
    shutil.copytree(settings["model_name_or_path"], copy)
    moved = without_shape(settings, plain_adapter, model_name_or_path=str(copy), max_steps=1)
    train(config_of(moved))
    weights = load_file(copy / "model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="was trained on"):
        train(config_of({**moved, "output_dir": str(tmp_path / "other")}))
