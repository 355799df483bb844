"""The benchmark of data parallel runs real processes, and says what they sent."""

import json

import pytest

from benchmarks import distributed


@pytest.mark.slow
def test_two_processes_send_one_buffer_and_agree_with_data_parallel(tmp_path, capsys):
    path = tmp_path / "found.json"
    words = ["--size", "tiny", "--tasks", "2", "--repeats", "2", "--warmup", "1", "--out", str(path)]
    distributed.main(words)
    result = json.loads(path.read_text(encoding="utf-8"))
    one, two = result["results"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["wire_bytes"]["one_pass"] == 0
    assert 1 <= two["wire_bytes"]["ratio"] < 1.01
    assert max(one["difference"], two["difference"]) < 1e-5
    assert [len(found["targets"]) for found in (one, two)] == [0, 1]
    assert result["environment"]["versions"]["torch"]
    assert "target one_pass / plain <= 1.1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_process_that_fails_ends_the_benchmark_with_what_it_said():
    settings = distributed.arguments(["--size", "tiny"])
    settings.size = "none"
    with pytest.raises(SystemExit, match="KeyError: 'none'"):
        distributed.launch(1, settings)


def seen(plain: list[float], one_pass: list[float], difference: float = 0.0) -> dict:
    seconds = {"plain": plain, "one_pass": one_pass}
    return {"seconds": seconds, "difference": difference, "tokens": 8, "parameters": 100, "sent": 808}


def test_a_round_takes_as_long_as_its_slowest_process():
    found = distributed.summarised([seen([1.0, 2.0], [2.0, 2.0]), seen([2.0, 1.0], [1.0, 3.0])], num_tasks=2)
    assert found["seconds"]["plain"].median == 2.0
    assert found["ratio_to_plain"].median == pytest.approx((2 / 2 + 3 / 2) / 2)
    assert found["wire_bytes"] == {"one_pass": 808, "floor": 800, "ratio": 1.01}
    assert not found["targets"][0]["met"]


def test_processes_that_disagree_are_an_error():
    with pytest.raises(SystemExit, match="do not compute the same gradient"):
        distributed.summarised([seen([1.0], [1.0]), seen([1.0], [1.0], float("nan"))], num_tasks=2)


def test_tasks_must_divide_the_rows_of_a_process(capsys):
    with pytest.raises(SystemExit):
        distributed.arguments(["--tasks", "3"])
    assert "must divide the 16 rows of a process, got 3" in capsys.readouterr().err
