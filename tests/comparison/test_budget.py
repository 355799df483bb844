"""`budget`: steps for all runs, or a time that becomes steps once."""

import json
from pathlib import Path

import pytest
from tiny_comparison import compare, lines_by_run


def test_a_budget_in_steps_holds_for_every_run(grid, tmp_path):
    assert compare({**grid, "baselines": False}, tmp_path, "--budget", "3") == 0
    assert {line["steps"] for line in lines_by_run(grid).values()} == {3}


@pytest.mark.slow
def test_a_budget_in_seconds_becomes_steps_once(grid, tmp_path):
    assert compare({**grid, "baselines": False}, tmp_path, "--budget", "1s") == 0
    known = json.loads((Path(grid["output_dir"]) / "budget.json").read_text(encoding="utf-8"))
    assert known["budget"] == "1 seconds"
    lines = lines_by_run(grid)
    for name in ("sum", "pcgrad"):
        assert lines[f"{name}-seed3"]["steps"] == known["steps"][name] > 2
        assert 0.2 < lines[f"{name}-seed3"]["train_runtime"] < 5
    assert compare({**grid, "baselines": False}, tmp_path, "--budget", "1s") == 0  # from the file, not measured again
    assert compare({**grid, "baselines": False}, tmp_path, "--budget", "2s") == 2
