"""`mtl-opt train` and `eval` on one finished run."""

import json
import os
import subprocess
import sys

import pytest
from tiny_run import TASKS, build_data, build_model, write_config

from mtl_opt import cli


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Train once through the command line; give its folder."""
    folder = tmp_path_factory.mktemp("run")
    settings = {
        "model_name_or_path": build_model(folder / "模型"),
        "tasks": build_data(folder / "数据"),
        "output_dir": str(folder / "结果"),
        "cutoff_len": 48,
        "save_steps": None,
    }
    config = write_config(folder / "配置.yaml", settings)
    assert cli.main(["train", config, "max_steps=2", "rows_per_task=2", "combiner=pcgrad", "max_new_tokens=2"]) == 0
    return folder / "结果"


def test_eval_prints_the_numbers_of_the_results_as_json(finished, capsys):
    capsys.readouterr()
    assert cli.main(["eval", str(finished), "--json"]) == 0
    results = json.loads((finished / "all_results.json").read_text(encoding="utf-8"))
    out = capsys.readouterr().out
    assert json.loads(out) == {key: value for key, value in results.items() if key.startswith("eval_")}
    assert out.count("\n") == 1
    assert "摘要" in out


def test_eval_prints_one_line_per_number(finished, capsys):
    capsys.readouterr()
    assert cli.main(["eval", str(finished)]) == 0
    keys = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert keys == [f"eval_{task}_{metric}" for task in TASKS for metric in ("loss", "exact_match")]


def run_program(command, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_module_prints_chinese_where_the_terminal_cannot(finished):
    command = [sys.executable, "-m", "mtl_opt.cli", "eval", str(finished)]
    found = run_program(command, PYTHONIOENCODING="ascii")
    assert found.returncode == 0, found.stderr
    assert b"eval_qa_loss" in found.stdout


@pytest.mark.slow
def test_the_module_prints_one_sentence_for_bad_input(finished):
    command = [sys.executable, "-m", "mtl_opt.cli", "train", str(finished / "config.yaml")]
    found = run_program(command)
    assert found.returncode == 2
    assert found.stdout == b""
    last = found.stderr.decode().splitlines()[-1]
    assert last.startswith("mtl-opt: error: `output_dir`:")
    assert "Traceback" not in found.stderr.decode()
