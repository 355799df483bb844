"""Runs of the architectures that people fine-tune: trained, exported and asked, or refused with a reason."""

import logging

import pytest
from tiny_architectures import save_architecture
from tiny_run import config_of

from mtl_opt.deploy.export_folders import export
from mtl_opt.training import train
from mtl_opt.training.preview.plan import plan_run


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Save each architecture once, when it is first asked for."""
    folder, saved = tmp_path_factory.mktemp("architectures"), {}

    def save(name: str) -> str:
        saved[name] = saved.get(name) or save_architecture(name, folder / name)
        return saved[name]

    return save


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_auto_takes_per_task_where_experts_have_adapters_and_the_plan_says_so(name, settings, folder_of, caplog):
    caplog.set_level(logging.INFO)
    config = config_of(settings, model_name_or_path=folder_of(name), max_steps=1)
    planned = plan_run(config)
    caplog.clear()
    train(config)
    (line,) = [record.getMessage() for record in caplog.records if "Gradient engine" in record.getMessage()]
    assert line == f"Gradient engine {planned.engine}: {planned.engine_reason}."
    assert planned.engine == "per_task"
    assert "`base_model.model.model.layers." in planned.engine_reason


def test_experts_have_an_adapter_of_their_own_rank_and_it_is_said_in_our_words(settings, folder_of, caplog):
    caplog.set_level(logging.INFO)
    train(config_of(settings, model_name_or_path=folder_of("mixtral"), max_steps=1))
    assert "The adapter of `gate_up_proj`, several projections in one, has rank 4; others have 2." in caplog.text


def test_mamba_trains_with_the_usual_targets_and_the_log_names_what_is_left_out(settings, folder_of, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings["model_name_or_path"] = folder_of("mamba")
    config = config_of(settings)
    assert plan_run(config).shared == train(config)["params_shared"]
    assert "peft puts no adapter on some layers called `out_proj` of this model" in caplog.text
    export(tmp_path / "run")
    logged = caplog.text.count("peft puts no adapter")
    train(config_of(settings, sharing="private_layers", output_dir=str(tmp_path / "private")))
    export(tmp_path / "private")
    assert caplog.text.count("peft puts no adapter") == logged


def test_a_target_that_can_carry_no_adapter_is_refused(settings, folder_of, refused):
    sentence = refused({**settings, "model_name_or_path": folder_of("mamba"), "lora_target": "in_proj,out_proj"})
    assert "`lora_target` names `out_proj`, which can carry no adapter in `MambaForCausalLM`" in sentence
