"""Worker processes: the numbers of one process, Ctrl-C, errors and death."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_comparison import compare, lines_by_run
from tiny_run import log_lines, write_config


def results_only(line):
    return {key: line[key] for key in ("metrics", "before", "conflict_rate", "learning_rate", "steps", "tasks")}


@pytest.mark.slow
def test_a_line_names_the_threads_of_the_process_that_trained(grid, tmp_path, monkeypatch):
    threads = torch.get_num_threads() + 1
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    assert compare({**grid, "baselines": False}, tmp_path, "--jobs", "2") == 0
    for line in lines_by_run(grid).values():
        assert f", {threads} threads" in line["provenance"]["hardware"]


@pytest.mark.slow
def test_worker_processes_give_the_same_numbers_as_one_process(grid, tmp_path):
    grid |= {"seeds": [3, 4], "learning_rates": [0.001, 0.01]}
    assert compare(grid, tmp_path) == 0
    other = {**grid, "output_dir": str(tmp_path / "两个进程")}
    assert compare(other, tmp_path, "--jobs", "2") == 0
    one, two = lines_by_run(grid), lines_by_run(other)
    assert set(one) == set(two)
    for name in one:
        assert results_only(one[name]) == results_only(two[name])
    assert [path.name for path in sorted((Path(other["output_dir"]) / "jobs").iterdir())] == [
        "worker-0.log", "worker-1.log"
    ]  # fmt: skip
    assert compare(other, tmp_path, "--jobs", "2") == 0


@pytest.mark.slow
def test_what_a_worker_refuses_is_one_sentence_that_names_the_run(grid, refused):
    folder = Path(grid["output_dir"]) / "pcgrad-seed3"
    folder.mkdir(parents=True)
    (folder / "all_results.json").write_text("{", encoding="utf-8")
    sentence = refused(grid, "jobs=2", verb="compare")
    assert "Run `pcgrad-seed3`: " in sentence


@pytest.mark.slow
@pytest.mark.parametrize("to_the_group", [False, True])
def test_ctrl_c_stops_all_workers_and_the_next_call_goes_on_bit_by_bit(grid, tmp_path, to_the_group):
    grid |= {"max_steps": 60, "baselines": False, "lora_dropout": 0.2}
    assert compare({**grid, "output_dir": str(tmp_path / "whole")}, tmp_path) == 0
    command = [sys.executable, "-m", "mtl_opt.cli", "compare", write_config(tmp_path / "config.yaml", grid)]
    process = subprocess.Popen(
        [*command, "--jobs", "2"], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    logs = [Path(grid["output_dir"]) / f"{name}-seed3" / "trainer_log.jsonl" for name in ("sum", "pcgrad")]
    while not all(log.exists() and len(log.read_bytes().splitlines()) > 5 for log in logs):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    if to_the_group:  # what a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("mtl-opt: Stopped after step ")
    assert "Traceback" not in error
    assert compare(grid, tmp_path, "--jobs", "2") == 0
    for name in ("sum-seed3", "pcgrad-seed3"):
        file = Path(name) / "adapter_model.safetensors"
        mine, whole = load_file(Path(grid["output_dir"]) / file), load_file(tmp_path / "whole" / file)
        assert all(bool((mine[key] == whole[key]).all()) for key in whole)
        steps = [row["current_steps"] for row in log_lines(Path(grid["output_dir"]) / name) if "lr" in row]
        assert steps == list(range(1, 61))


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_comparison_with_a_sentence_and_no_orphans(grid, tmp_path):
    grid |= {"max_steps": 100000, "baselines": False}
    command = [sys.executable, "-m", "mtl_opt.cli", "compare", write_config(tmp_path / "config.yaml", grid)]
    process = subprocess.Popen(
        [*command, "--jobs", "2"], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    logs = [Path(grid["output_dir"]) / f"{name}-seed3" / "trainer_log.jsonl" for name in ("sum", "pcgrad")]
    while not all(log.exists() and len(log.read_bytes().splitlines()) > 2 for log in logs):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "its process ended with exit code -9" in error.splitlines()[-1]
    assert not any(Path(f"/proc/{child}").exists() for child in children)
