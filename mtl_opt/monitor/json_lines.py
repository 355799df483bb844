"""The log as one JSON object per line, with the keys LLaMA-Factory uses, so that its tools and habits keep working."""

import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from mtl_opt.results import json_line, parse_json_line


def clock_text(seconds: float) -> str:
    """Write a duration.

    Examples:
        >>> clock_text(3675.9), clock_text(100_000)
        ('1:01:15', '27:46:40')
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def drop_lines_after(path: Path, step: int, key: str = "current_steps") -> None:
    """Drop the lines of later steps and torn lines from a log; all at once or not at all."""
    rows = [parse_json_line(line) for line in path.read_bytes().splitlines()]
    kept = [row for row in rows if row is not None and row.get(key, 0) <= step]
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json_line(row) for row in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class TrainerLog:
    """Append to `trainer_log.jsonl`: one line per log line or evaluation, on disk when the call returns.

    Args:
        path: The file; a fresh run replaces an old one.
        total_steps: Optimizer steps of the whole run.
        resume_step: Step the run continues after; lines of later steps are dropped. None for a fresh run.
    """

    def __init__(self, path: str | Path, total_steps: int, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.total_steps = total_steps
        self.first_step = resume_step or 0
        self.start = monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is None or not self.path.exists():
            self.path.write_bytes(b"")
        else:
            drop_lines_after(self.path, resume_step)

    def write(
        self, step: int, epoch: float, scalars: Mapping[str, float], notes: Mapping[str, int] | None = None
    ) -> None:
        """Append a line of training.

        Args:
            step: Number of the optimizer step.
            epoch: Passes over the data so far.
            scalars: Flat keys as `scalars` returns them; what is not finite is left out.
            notes: What combiners noted, and in how many steps since the last line; none: the key `notes` is left out.
        """
        head = {"loss": scalars.get("loss"), "lr": scalars.get("learning_rate"), "epoch": epoch}
        self.append(step, head, scalars, notes)

    def write_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics of an evaluation.

        Args:
            step: Number of the optimizer step.
            metrics: Values under keys such as `eval_qa_loss`; what is not finite is left out.
        """
        self.append(step, {}, metrics)

    def append(
        self,
        step: int,
        head: Mapping[str, float | None],
        values: Mapping[str, float],
        notes: Mapping[str, int] | None = None,
    ) -> None:
        """Append one line: steps, `head`, progress, `values`, `notes`.

        Args:
            step: Number of the optimizer step.
            head: Values to show before the progress; None is left out.
            values: Values to show after it.
            notes: Sentences and their numbers of steps.
        """
        elapsed = monotonic() - self.start
        done = step - self.first_step  # of this process: a resumed run must not guess from steps it did not take
        remaining = elapsed / done * (self.total_steps - step) if done > 0 else 0.0
        row: dict[str, Any] = {"current_steps": step, "total_steps": self.total_steps}
        row |= {key: value for key, value in head.items() if value is not None and isfinite(value)}
        row["percentage"] = round(100 * step / self.total_steps, 2) if self.total_steps else 100.0
        row |= {"elapsed_time": clock_text(elapsed), "remaining_time": clock_text(max(remaining, 0.0))}
        row |= {key: value for key, value in values.items() if isfinite(value)}
        row |= {"notes": dict(notes)} if notes else {}
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json_line(row))
