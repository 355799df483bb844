"""`generated_predictions.jsonl` of several runs side by side: what does one method answer that another does not?"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.evaluation.text_metrics import normalise_answer
from mtl_opt.results import PREDICTIONS_JSONL


@dataclass(frozen=True)
class Answers:
    """Hold what several runs answer to one prompt.

    Attributes:
        task: Its task.
        prompt: What the model saw.
        label: The expected answer.
        predictions: Run → its answer.
    """

    task: str
    prompt: str
    label: str
    predictions: dict[str, str]

    @property
    def right(self) -> dict[str, bool]:
        """Runs → whether their answer equals the label."""
        return {
            run: normalise_answer(answer) == normalise_answer(self.label) for run, answer in self.predictions.items()
        }

    @property
    def differs(self) -> bool:
        """Whether any two runs answer differently."""
        return len({normalise_answer(answer) for answer in self.predictions.values()}) > 1


def side_by_side(folders: Sequence[Path], task: str | None = None, different: bool = False) -> list[Answers]:
    """Pair the answers of runs on the same held-out rows."""
    names = run_names(folders)
    tables = {name: _read(folder / PREDICTIONS_JSONL) for name, folder in zip(names, folders, strict=True)}
    first = tables[names[0]]
    tasks = list(dict.fromkeys(key[0] for key in first))
    if task is not None and task not in tasks:
        raise UnknownNameError("task", task, tasks)
    common = [key for key in first if all(key in table for table in tables.values())]
    if not common:
        raise InputError(f"The runs {', '.join(names)} share no held-out row: they were measured on other data.")
    rows = [Answers(*key[:3], {name: table[key] for name, table in tables.items()}) for key in common]
    return [row for row in rows if task in {None, row.task} and (row.differs or not different)]


def run_names(folders: Sequence[Path]) -> list[str]:
    """Name runs by their folders' last parts, or by the whole path where two share it."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _read(path: Path) -> dict[tuple[str, str, str, int], str]:
    """Read the answers of a run by task, prompt, label and, for rows that stand there twice, their number."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        found: dict[tuple[str, str, str, int], str] = {}
        times = Counter[tuple[str, str, str]]()
        for line in lines:
            key = (line["task"], line["prompt"], line["label"])
            place = (*key, times[key])
            found[place] = line["predict"]
            times[key] += 1
    except FileNotFoundError:
        raise InputError(
            f"`{path.parent}` holds no `{PREDICTIONS_JSONL}`: it is no finished run with generated answers."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"`{path}` cannot be read ({type(error).__name__}: {error}).") from error
    return found


def answers_text(rows: Sequence[Answers], limit: int | None = None) -> str:
    """Write answers for a terminal."""
    shown = rows if limit is None else rows[:limit]
    names = list(rows[0].predictions) if rows else []
    width = max(map(len, [*names, "expected"]), default=0)
    blocks = []
    for row in shown:
        lines = [f"[{row.task}] {row.prompt.strip()}", f"  {'expected':{width}}    {row.label}"]
        lines += [f"  {name:{width}}  {'✓' if row.right[name] else '✗'} {row.predictions[name]}" for name in names]
        blocks.append("\n".join(lines))
    counts = [f"{name}: {sum(row.right[name] for row in rows)} of {len(rows)} right" for name in names]
    head = f"{len(shown)} of {len(rows)} rows shown. " if len(shown) < len(rows) else ""
    return "\n\n".join([*blocks, head + ("; ".join(counts) or "No row to show.")])


def to_json(rows: Sequence[Answers]) -> list[dict[str, Any]]:
    """Convert answers to plain values for JSON."""
    return [
        {"task": row.task, "prompt": row.prompt, "label": row.label, "predictions": row.predictions} for row in rows
    ]
