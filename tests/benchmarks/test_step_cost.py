import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.step_cost import arguments, main, table
from benchmarks.timer import Summary
from benchmarks.variants import FULL_VARIANTS, VARIANTS, missing
from benchmarks.workload import Workload

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result():
    words = "-m benchmarks.step_cost --json --size tiny --tasks 2 --repeats 2 --warmup 1 --threads 1 --device cpu"
    done = subprocess.run(
        [sys.executable, *words.split()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_variant_has_finite_positive_ratios(result):
    heads = [(found["train"], found["rows"], found["tasks"]) for found in result["results"]]
    assert heads == [(train, rows, 2) for train in ("lora", "full") for rows in ("equal", "ragged")]
    for found in result["results"]:
        wanted = FULL_VARIANTS if found["train"] == "full" else VARIANTS
        assert set(found["variants"]) | (set(result["left_out"]) & set(wanted)) == set(wanted)
        for one in found["variants"].values():
            numbers = [*one["seconds"].values(), *one["ratio_to_plain"].values(), one["memory_ratio_to_plain"]]
            assert all(math.isfinite(n) and n > 0 for n in numbers)
            assert one["peak_bytes"] > 0


@pytest.mark.slow
def test_the_variants_are_checked_before_they_are_timed(result):
    for found in result["results"]:
        assert found["check"]["passed"]
        assert found["check"]["weighted"]["one_pass"] <= 1e-5


@pytest.mark.slow
def test_the_result_says_where_it_was_measured(result):
    assert result["environment"]["versions"]["torch"]
    assert result["environment"]["threads"] == 1


@pytest.mark.slow
def test_a_missing_peer_is_left_out_with_a_reason(result):
    assert set(result["left_out"]) == {v for v in VARIANTS if missing(v)}


def test_the_table_shows_ratios_targets_and_what_is_left_out():
    one = {"seconds": Summary(1, 1, 1), "peak_bytes": 1 << 20, "memory_ratio_to_plain": 1.0}
    one |= {"bytes_over_plain": 3 << 20, "buffer_bytes": 2 << 20, "ratio_to_plain": Summary(1.0, 1.01, 1.02)}
    judged = {"name": "one_pass / plain", "measured": 1.01, "at_most": 1.05, "met": True}
    entry = {"size": "large", "train": "lora", "rows": "ragged", "tasks": 4, "tokens": 2048, "targets": [judged]}
    entry |= {"variants": {"plain": one, "one_pass": one}, "left_out": {"one_pass_halves": "two rows"}}
    about = {"gpu": None, "cpu": "a processor", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}
    text = table({"environment": about, "left_out": {"torchjd": "not installed"}, "results": [entry]})
    assert "large, lora, ragged rows: 4 tasks, 2048 tokens a step" in text
    assert "target one_pass / plain <= 1.05: 1.010, met" in text
    assert "torchjd is left out: not installed" in text
    assert "one_pass_halves is left out: two rows" in text


def test_variants_that_differ_are_an_error(monkeypatch):
    monkeypatch.setattr(Workload, "tolerance", -1.0)
    settings = ["--tasks", "2", "--rows", "equal", "--train", "lora", "--variants", "plain,one_pass"]
    with pytest.raises(SystemExit, match="do not compute the same gradient"):
        main(["--size", "tiny", "--device", "cpu", *settings])


@pytest.mark.parametrize(
    "words", [["--tasks", "0"], ["--size", "huge"], ["--variants", "one_pass"], ["--repeats", "x"]]
)
def test_wrong_arguments_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        arguments(words)
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
