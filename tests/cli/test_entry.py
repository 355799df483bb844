"""The entry of the command line: help, versions, exit codes."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from mtl_opt import cli
from mtl_opt.training.config.run_config import CompareConfig, TrainConfig


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


def run_program(command, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)


def test_the_entry_point_answers_without_loading_the_libraries_of_training():
    found = run_program([str(Path(sys.executable).parent / "mtl-opt"), "--version"])
    assert found.returncode == 0
    assert found.stdout.startswith(b"mtl-opt 0.")
    code = "import mtl_opt.cli, sys; print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    assert run_program([sys.executable, "-c", code]).stdout.strip() in {b"[]", b"['torch']"}
