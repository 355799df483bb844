import io
import json
import time

import pytest
import torch

from benchmarks.timer import Summary, Timings, environment, interleaved, peak_bytes, summary, version, write_json

CPU = torch.device("cpu")


def test_summary_is_not_moved_by_one_slow_round():
    assert summary([1.0, 1.0, 1.0, 1.0, 100.0]) == Summary(1.0, 1.0, 1.0)


def test_summary_of_one_measurement_is_that_measurement():
    assert summary([2.0]) == Summary(2.0, 2.0, 2.0)


def test_ratio_is_taken_round_by_round():
    slow, fast = Timings((2.0, 20.0, 200.0)), Timings((1.0, 10.0, 100.0))
    assert slow.ratio_to(fast) == Summary(2.0, 2.0, 2.0)


def test_variants_take_turns_and_warm_up_is_not_timed():
    calls, rounds = [], []
    variants = {name: lambda name=name: calls.append(name) for name in ("a", "b", "c")}
    timings = interleaved(variants, rounds=4, warmup=2, synchronize=lambda: None, advance=lambda: rounds.append(1))
    turns = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1  # not always the same predecessor
    assert list(timings) == ["a", "b", "c"]
    assert all(len(one.seconds) == 4 for one in timings.values())
    assert len(rounds) == 6


def test_waiting_for_the_device_is_part_of_the_time():
    pending = []

    def synchronize() -> None:
        while pending:
            time.sleep(pending.pop())

    timings = interleaved({"queued": lambda: pending.append(0.01)}, 2, 0, synchronize)
    assert min(timings["queued"].seconds) >= 0.01


@pytest.mark.filterwarnings("default")
def test_peak_counts_what_is_held_at_once():
    block = 1 << 20  # bytes

    def build():
        kept = torch.zeros(block, dtype=torch.uint8)

        def step() -> None:
            first = torch.zeros(2 * block, dtype=torch.uint8)
            del first
            torch.zeros(3 * block, dtype=torch.uint8).add_(kept[0])

        return step

    assert 4 * block <= peak_bytes(build, CPU) < 4.1 * block


def test_environment_names_hardware_and_versions():
    found = environment(CPU)
    assert found["cpu"]
    assert found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == version("torch")
    assert found["gpu"] is None


def test_version_of_a_missing_package_is_none():
    assert version("no-such-package-as-this") is None


def test_json_holds_summaries_as_plain_numbers():
    stream = io.StringIO()
    write_json({"time": Summary(1.0, 2.0, 3.0)}, stream)
    assert json.loads(stream.getvalue()) == {"time": {"low": 1.0, "median": 2.0, "high": 3.0}}
