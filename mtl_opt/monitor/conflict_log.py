"""`conflict.jsonl`: the diagnosis of every log line, one JSON object each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_opt.monitor.json_lines import drop_lines_after
from mtl_opt.results import json_line


class ConflictLog:
    """Append to `conflict.jsonl`; every line is on disk when the call returns.

    Args:
        path: The file; a fresh run replaces an old one.
        resume_step: Step the run continues after; lines of later steps are dropped. None for a fresh run.
    """

    def __init__(self, path: str | Path, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is None or not self.path.exists():
            self.path.write_bytes(b"")
        else:
            drop_lines_after(self.path, resume_step, key="step")

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            line: What `diagnose` gave.
        """
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json_line(line))
