"""Runs of the architectures that people fine-tune: trained, exported and asked, or refused with a reason."""

import logging

import pytest
from tiny_architectures import save_architecture
from tiny_run import config_of

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
