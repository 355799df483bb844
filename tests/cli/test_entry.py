"""The command line itself; what its verbs do is tested beside `training`."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from tiny_run import TASKS, build_data, build_model, write_config

from mtl_opt import cli
from mtl_opt.combiners import COMBINERS
from mtl_opt.training.config.run_config import CompareConfig, TrainConfig


def test_list_combiners_as_text_has_one_line_per_name(capsys):
    assert cli.main(["list", "combiners"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *COMBINERS]


def test_list_combiners_as_json_is_an_object_keyed_by_name(capsys):
    assert cli.main(["list", "combiners", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert list(table) == list(COMBINERS)
    assert table["pcgrad"]["class"] == "PCGrad"
    assert table["pcgrad"]["requires"] == "gramian"
    assert all(entry["paper"] for entry in table.values())


def test_env_names_every_version_a_bug_report_needs(capsys):
    assert cli.main(["env"]) == 0
    out = capsys.readouterr().out
    for name in ("mtl_opt", "python", "platform", "torch", "transformers", "peft", "gpu"):
        assert f"\n{name} " in f"\n{out}"


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_help_lists_every_key_of_the_configuration(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    wanted = {f.name for f in fields(TrainConfig)}
    if verb == "compare":
        wanted |= {f.name for f in fields(CompareConfig)}
        wanted -= {"combiner", "seed", "resume_from_checkpoint", "only_tasks", "val_from_train", "monitor_only"}
    listed = [line.split()[0] for line in out.partition("keys of the configuration")[2].splitlines()[1:]]
    assert sorted(listed) == sorted(wanted)


@pytest.mark.parametrize("verb", [[], ["eval"], ["list"], ["env"]])
def test_every_verb_has_help(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb, "--help"])
    assert stop.value.code == 0
    assert "usage: mtl-opt" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("mtl-opt 0.")


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["eval"], ["list", "combinators"], ["env", "--jsn"]])
def test_a_command_that_does_not_exist_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "mtl-opt" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["combinres=sum", "combiners=pcgard", "seeds=x", "combiner=sum"])
def test_the_embedded_example_checks_overrides_before_it_builds_its_model(capsys, tmp_path, monkeypatch, override):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(["compare", override]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mtl-opt: error: ")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_outside_of_training_is_one_line(capsys, monkeypatch):
    def stop(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mtl_opt.cli.catalogue._env", stop)
    assert cli.main(["env"]) == 130
    assert capsys.readouterr().err == "mtl-opt: Stopped.\n"


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


def test_the_entry_point_answers_without_loading_the_libraries_of_training():
    found = run_program([str(Path(sys.executable).parent / "mtl-opt"), "--version"])
    assert found.returncode == 0
    assert found.stdout.startswith(b"mtl-opt 0.")
    code = "import mtl_opt.cli, sys; print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    assert run_program([sys.executable, "-c", code]).stdout.strip() in {b"[]", b"['torch']"}


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
