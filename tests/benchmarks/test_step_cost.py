import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.step_cost import arguments, table, targets
from benchmarks.timer import Summary
from benchmarks.variants import VARIANTS, missing

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
    assert [found["tasks"] for found in result["results"]] == [2]
    for found in result["results"]:
        assert set(found["variants"]) | set(result["left_out"]) == set(VARIANTS)
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


def a_measurement(one_pass: float, torchjd: float) -> dict:
    """Build what `measure` returns for given ratios."""
    one = {"seconds": Summary(1, 1, 1), "peak_bytes": 1 << 20, "memory_ratio_to_plain": 1.0}
    ratio = {"plain": 1.0, "one_pass": one_pass}
    variants = {n: {**one, "ratio_to_plain": Summary(r, r, r)} for n, r in ratio.items()}
    return {"variants": variants, "peer_ratios": {"torchjd": Summary(torchjd, torchjd, torchjd)}}


@pytest.mark.parametrize(
    ("size", "num_tasks", "one_pass", "torchjd", "met"),
    [
        ("large", 4, 1.04, 2.6, [True, True]),
        ("large", 8, 1.06, 3.9, [False, False]),
        ("small", 8, 1.14, 4.1, [True, True]),
    ],
)
def test_targets_are_compared_with_the_medians(size, num_tasks, one_pass, torchjd, met):
    found = targets(size, num_tasks, a_measurement(one_pass, torchjd))
    assert [one["met"] for one in found] == met


def test_two_tasks_have_no_targets():
    assert targets("large", 2, a_measurement(9.0, 0.1)) == []


def test_the_table_shows_ratios_and_targets():
    measured = a_measurement(1.01, 3.1)
    entry = {"size": "large", "tasks": 4, "tokens": 2048, **measured, "targets": targets("large", 4, measured)}
    about = {"gpu": None, "cpu": "a processor", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}
    text = table({"environment": about, "left_out": {"torchjd": "not installed"}, "results": [entry]})
    assert "target one_pass / plain <= 1.05: 1.010, met" in text
    assert "torchjd is left out: not installed" in text


@pytest.mark.parametrize(
    "words", [["--tasks", "0"], ["--size", "huge"], ["--variants", "one_pass"], ["--repeats", "x"]]
)
def test_wrong_arguments_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        arguments(words)
    assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
