"""The configurations for hub models: valid, distinct, and planned from their architecture alone."""

import pytest

from experiments.llm.measure import ARCHITECTURES, configurations, dry_run, write_data
from mtl_opt.training import read_yaml, train_config


@pytest.mark.parametrize("path", configurations(), ids=lambda path: path.stem)
def test_configuration_is_valid_and_its_model_is_known(path):
    config = train_config(read_yaml(str(path), []))
    assert config.model_name_or_path in ARCHITECTURES
    assert config.output_dir == f"outputs/llm/{path.stem}"


def test_one_task_has_a_chinese_name():
    names = [name for path in configurations() for name in read_yaml(str(path), [])["tasks"]]
    assert "情绪" in names


@pytest.mark.slow
def test_a_plan_is_made_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_data(tmp_path / "data")
    path = next(path for path in configurations() if path.stem == "qwen2.5_0.5b_qlora")
    found = dry_run(path, tmp_path / "data", tmp_path / "models")
    assert found["parameters"] - found["shared"] == ARCHITECTURES["Qwen/Qwen2.5-0.5B"][1]
    assert found["engine"] == "one_pass"
    assert "情绪" in found["tasks"]
