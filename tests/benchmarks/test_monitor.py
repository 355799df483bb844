"""The benchmark of monitoring times real shadows on real rows, and says what was measured."""

import json

import pytest

from benchmarks import monitor
from benchmarks.timer import Summary

QUICK = ["--size", "tiny", "--repeats", "2", "--warmup", "1", "--tasks", "2", "--device", "cpu", "--threads", "1"]


@pytest.mark.slow
def test_json_holds_every_part_as_a_share_of_the_plain_step(capsys):
    monitor.main([*QUICK, "--json"])
    result = json.loads(capsys.readouterr().out)
    (found,) = result["results"]
    assert result["settings"]["logging_steps"] == 10
    assert list(found["variants"]) == list(monitor.VARIANTS)
    for one in found["variants"].values():
        share, plain = one["share_of_plain"]["median"], found["plain_seconds"]["median"]
        assert 0 < one["seconds_per_step"]["low"] <= one["seconds_per_step"]["high"]
        assert share == pytest.approx(one["seconds_per_step"]["median"] / plain, rel=3)  # of few and noisy rounds
    times = {name: one["seconds_per_step"]["median"] for name, one in found["variants"].items()}
    assert times["window"] < times["all"]
    assert found["targets"] == []  # a tiny step is no real one


def test_the_table_shows_shares_and_targets():
    one = {"seconds_per_step": Summary(2e-3, 2e-3, 2e-3), "share_of_plain": Summary(0.009, 0.01, 0.011)}
    target = {"name": "shadows / plain", "measured": 0.01, "at_most": 0.02, "met": True}
    entry = {"size": "large", "tasks": 4, "plain_seconds": Summary(0.2, 0.2, 0.2), "targets": [target]}
    text = monitor.table({"results": [{**entry, "variants": {"shadows": one}}]})
    assert "large, 4 tasks: plain step 200.0 ms" in text
    assert "2.00 ms a step    1.00 % [0.90, 1.10]" in text
    assert "target shadows / plain <= 0.02: 0.0100, met" in text
