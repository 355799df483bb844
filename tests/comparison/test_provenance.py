"""Provenance: complete in every line, and the data behind it."""

import json
from pathlib import Path

from tiny_comparison import compare, lines_by_run
from tiny_run import rows_of, write_jsonl


def test_provenance_is_complete(grid, tmp_path):
    assert compare({**grid, "combiners": ["sum"], "baselines": False}, tmp_path) == 0
    (found,) = lines_by_run(grid).values()
    keys = {"mtl_opt", "torch", "transformers", "peft", "python", "git_commit", "data_hash", "hardware", "time"}
    assert set(found["provenance"]) == keys
    assert all(found["provenance"][key] for key in keys - {"git_commit"})
    assert found["overhead_seconds"] > 0
    grid_file = json.loads((Path(grid["output_dir"]) / "grid.json").read_text(encoding="utf-8"))
    assert grid_file["runs"] == ["sum-seed3"]
    assert 0 < grid_file["overhead_share"] < 1


def test_changed_rows_are_refused(grid, tmp_path, refused):
    grid |= {"baselines": False}
    file = write_jsonl(tmp_path / "qa.jsonl", rows_of("qa", 5))
    grid["tasks"] = {"qa": {**grid["tasks"]["qa"], "file": file}}
    assert compare(grid, tmp_path) == 0
    hashes = {line["provenance"]["data_hash"] for line in lines_by_run(grid).values()}
    assert len(hashes) == 1
    write_jsonl(tmp_path / "qa.jsonl", rows_of("qa", 6))
    assert "other data" in refused(grid, verb="compare")
