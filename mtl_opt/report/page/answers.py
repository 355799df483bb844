"""What the models answered: the first held-out rows of every task, one run per method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_opt.results import PREDICTIONS_JSONL, parse_json_line

LONGEST = {"prompt": 400, "answer": 200}
"""Characters that are kept of a text."""


def clipped(text: Any, most: int) -> str:
    """Truncate a text at its beginning."""
    written = str(text)
    return written if len(written) <= most else "…" + written[-most:]


def first_rows(path: Path, tasks: Sequence[str], most: int) -> dict[str, list[dict[str, str]]]:
    """Read the first predictions of every task."""
    found: dict[str, list[dict[str, str]]] = {}
    if not path.exists():
        return found
    with path.open("rb") as file:
        for text in file:
            row = parse_json_line(text)
            if row is None or row.get("task") not in tasks:
                continue
            rows = found.setdefault(row["task"], [])
            if len(rows) < most:
                short = {key: clipped(row.get(key, ""), LONGEST["answer"]) for key in ("predict", "label")}
                rows.append({"prompt": clipped(row.get("prompt", ""), LONGEST["prompt"]), **short})
    return found


def all_answers(
    runs: Sequence[tuple[Mapping[str, Any], Path]], tasks: Sequence[str], budget: int = 600_000
) -> dict[str, Any]:
    """Collect the answers of every method to the same rows."""
    methods = len({line["method"] for line, _ in runs}) or 1
    most = max(2, min(12, budget // (LONGEST["answer"] * methods * max(1, len(tasks)))))
    rows: dict[str, list[dict[str, str]]] = {}
    by_method: dict[str, dict[str, list[str]]] = {}
    for line, folder in runs:
        if line["method"] in by_method:
            continue
        found = first_rows(folder / PREDICTIONS_JSONL, tasks, most)
        for task, own in found.items():
            asked = [{"prompt": row["prompt"], "label": row["label"]} for row in own]
            if rows.setdefault(task, asked) == asked:
                by_method.setdefault(line["method"], {})[task] = [row["predict"] for row in own]
    return {"tasks": [task for task in tasks if task in rows], "rows": rows, "by_method": by_method}
