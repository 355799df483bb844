"""`mtl-opt compare` on the tiny run: called as a user does, and its lines read again."""

import json
from pathlib import Path
from typing import Any

from tiny_run import write_config

from mtl_opt import cli


def compare(settings: dict[str, Any], tmp_path: Path, *overrides: str) -> int:
    """Call `mtl-opt compare`; return its exit code."""
    return cli.main(["compare", write_config(tmp_path / "config.yaml", settings), *overrides])


def lines_of(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read `results.jsonl`."""
    text = (Path(settings["output_dir"]) / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def lines_by_run(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Read `results.jsonl` by name of the run."""
    return {line["run"]: line for line in lines_of(settings)}
