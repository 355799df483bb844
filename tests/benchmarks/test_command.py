import argparse
import io
import json

import pytest
import torch

from benchmarks import command
from benchmarks.step_cost import arguments


def test_names_and_numbers_are_read_from_lists():
    assert command.names(["a", "b"])("b,a") == ["b", "a"]
    assert command.positives("2,4") == [2, 4]
    with pytest.raises(argparse.ArgumentTypeError, match="unknown c; allowed: a, b"):
        command.names(["a", "b"])("c")
    with pytest.raises(argparse.ArgumentTypeError, match="above 0, got '-1'"):
        command.positive("-1")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("words", [["--size", "gpu_0.5b"], ["--size", "tiny,gpu_1.5b"], ["--device", "cuda"]])
def test_what_needs_a_gpu_is_refused_with_a_sentence_without_one(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        arguments(words)
    assert stopped.value.code == 2
    assert "there is n" in capsys.readouterr().err.splitlines()[-1]


def test_a_clock_of_the_process_is_refused_where_it_would_count_waiting(capsys):
    with pytest.raises(SystemExit):
        arguments(["--clock", "cpu", "--threads", "2", "--device", "cpu"])
    assert "needs --threads 1 --device cpu" in capsys.readouterr().err


RESULT = {"benchmark": "step_cost", "environment": {"gpu": None}, "值": [1]}


def table(result):
    return f"a table of {result['benchmark']}"


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_save_names_the_file_after_benchmark_and_device(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    command.output(RESULT, arguments(["--save", *words]), table)
    assert json.loads((tmp_path / "results" / "step_cost_cpu.json").read_text(encoding="utf-8")) == RESULT
    gpu = {**RESULT, "environment": {"gpu": "NVIDIA H200"}}
    command.output(gpu, arguments(["--save", *words]), table)
    assert (tmp_path / "results" / "step_cost_nvidia_h200.json").exists()
    printed = capsys.readouterr().out
    assert (json.load(io.StringIO(printed.split("}\n{")[0] + "}")) == RESULT) if words else ("a table" in printed)


def test_out_stores_where_it_is_told_and_excludes_save(tmp_path, capsys):
    path = tmp_path / "neu" / "结果.json"
    command.output(RESULT, arguments(["--out", str(path)]), table)
    assert json.loads(path.read_text(encoding="utf-8")) == RESULT
    with pytest.raises(SystemExit):
        arguments(["--out", str(path), "--save"])
    assert "not allowed with" in capsys.readouterr().err
