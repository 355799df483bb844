"""Where and when gradients conflict: `conflict.jsonl` of every run, thinned and packed for the page."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from itertools import combinations
from pathlib import Path
from typing import Any

from mtl_opt.monitor.log_numbers import distinct
from mtl_opt.report.page.curves import evenly, read_log, round_number
from mtl_opt.results import CONFLICT_JSONL, TRAINER_LOG_JSONL, parse_json_line

STEP = re.compile(rb'^\s*\{"step": (\d+)')
VERDICTS = {"real conflict": "C", "real agreement": "A", "noise": "N"}
MATRICES = ("cosines", "magnitude_similarity", "curvature_bound")

Lines = Sequence[Mapping[str, Any]]


def pack_cosine(value: Any) -> int | None:
    """Pack a cosine."""
    number = round_number(value, 9)
    return None if number is None else round(100 * number)


def entry(matrix: Any, i: int | None, j: int | None) -> Any:
    """Read one entry of a matrix that may be missing."""
    try:
        return matrix[i][j]
    except (TypeError, IndexError, KeyError):
        return None


def item(values: Any, key: Any) -> Any:
    """Read one item of a list or mapping that may be missing."""
    try:
        return values[key]
    except (TypeError, IndexError, KeyError):
        return None


def read_conflict(path: Path, most: int) -> list[dict[str, Any]]:
    """Read some lines of `conflict.jsonl`."""
    if not path.exists():
        return []
    texts = {int(match[1]): text for text in path.read_bytes().splitlines() if (match := STEP.match(text))}
    rows = [parse_json_line(texts[step]) for step in evenly(sorted(texts), most)]
    return [row for row in rows if row is not None]


class ConflictSeries:
    """Read quantities over the lines of a run, tasks in the order of the page.

    Args:
        lines: Lines of `conflict.jsonl`.
        tasks: Names of the tasks, in the order wanted.
    """

    def __init__(self, lines: Lines, tasks: Sequence[str]) -> None:
        self.lines = lines
        self.num_tasks = len(tasks)
        self.pairs = list(combinations(range(len(tasks)), 2))
        self.orders = []
        for line in lines:
            places = {name: place for place, name in enumerate(line.get("tasks") or tasks)}
            self.orders.append([places.get(task) for task in tasks])

    def per_pair(self, of: Callable[[Any], Any], pack: Callable[[Any], Any]) -> list[list[Any]]:
        """Read a matrix."""
        return [
            [pack(entry(of(line), order[i], order[j])) for line, order in zip(self.lines, self.orders, strict=True)]
            for i, j in self.pairs
        ]

    def per_task(self, of: Callable[[Any], Any]) -> list[list[Any]]:
        """Read a list with one number per task."""
        return [
            [round_number(item(of(line), order[t]), 3) for line, order in zip(self.lines, self.orders, strict=True)]
            for t in range(self.num_tasks)
        ]


def packed_conflict(lines: Lines, tasks: Sequence[str]) -> dict[str, Any]:
    """Pack the diagnosis of one run."""
    series = ConflictSeries(lines, tasks)
    packed: dict[str, Any] = {"steps": [line["step"] for line in lines]}
    for name in MATRICES:
        if any(line.get(name) for line in lines):
            pack = pack_cosine if name != "curvature_bound" else partial(round_number, digits=3)
            packed[name] = series.per_pair(looking_up(name), pack)
    packed.setdefault("cosines", [[None] * len(lines) for _ in series.pairs])
    for name in ("condition_number", "conflict_rate"):
        packed[name] = [round_number(line.get(name), 3) for line in lines]
    if any(line.get("shares") for line in lines):
        packed["shares"] = series.per_task(looking_up("shares"))
    if any(line.get("corrected") for line in lines):
        packed["corrected"] = packed_corrected(series)
    if any(line.get("layers") for line in lines):
        packed["layers"] = packed_layers(series)
    if any(line.get("shadows") for line in lines):
        packed["shadows"] = packed_shadows(series)
    return packed


def looking_up(*keys: str) -> Callable[[Any], Any]:
    """Return a function that looks up nested keys."""
    return lambda line: reduce(item, keys, line)


def packed_corrected(series: ConflictSeries) -> dict[str, Any]:
    """Pack the noise-corrected cosines."""
    packed: dict[str, Any] = {
        name: series.per_pair(looking_up("corrected", name), pack_cosine) for name in ("cosines", "low", "high")
    }
    letters = series.per_pair(looking_up("corrected", "verdict"), lambda word: VERDICTS.get(word, "-"))
    packed["verdict"] = ["".join(row) for row in letters]
    packed["signal_to_noise"] = series.per_task(looking_up("corrected", "signal_to_noise"))
    packed["window"] = [item(line.get("corrected"), "steps") for line in series.lines]
    return packed


def packed_layers(series: ConflictSeries) -> dict[str, Any]:
    """Pack the cosines of every layer."""
    names = list(dict.fromkeys(name for line in series.lines for name in line.get("layers") or {}))
    data = [series.per_pair(looking_up("layers", name), pack_cosine) for name in names]
    return {"names": names, "cosines": [list(rows) for rows in zip(*data, strict=True)]}


def packed_shadows(series: ConflictSeries) -> dict[str, Any]:
    """Pack what every registered combiner would have done."""
    found = {}
    for name in dict.fromkeys(name for line in series.lines for name in line.get("shadows") or {}):
        entries = [item(line.get("shadows"), name) for line in series.lines]
        angles = (round_number(item(shadow, "angle"), 9) for shadow in entries)
        notes = (item(shadow, "note") for shadow in entries)
        found[name] = {
            "angle": [None if angle is None else round(angle, 1) for angle in angles],
            "change": series.per_task(looking_up("shadows", name, "change")),
            "weights": series.per_task(looking_up("shadows", name, "weights")),
            "on_this_trajectory": any(item(shadow, "on_this_trajectory") for shadow in entries),
            "note": next((str(note) for note in notes if note), ""),
        }
    return found


def cosines_of_log(path: Path, tasks: Sequence[str], most: int) -> dict[str, Any] | None:
    """Read the raw cosines from the log of a run that has no `conflict.jsonl`."""
    keys = distinct(f"grad_cos_{a}_{b}" for a, b in combinations(tasks, 2))
    rows = {step: row for step, row in read_log([path], most)[0][0].items() if any(key in row for key in keys)}
    if not rows:
        return None
    return {
        "steps": list(rows),
        "cosines": [[pack_cosine(row.get(key)) for row in rows.values()] for key in keys],
        "condition_number": [None] * len(rows),
        "conflict_rate": [round_number(row.get("conflict_rate"), 3) for row in rows.values()],
    }


def all_conflicts(
    runs: Sequence[tuple[Mapping[str, Any], Path]], tasks: Sequence[str], budget: int = 2_600_000
) -> dict[str, Any]:
    """Pack the diagnosis of as many runs as fit on a page."""
    if len(tasks) < 2:
        return {"runs": [], "left_out": 0}
    kept: list[dict[str, Any]] = []
    most, left_out, used = 60, 0, 0
    methods = len({line["method"] for line, _ in runs}) or 1
    for line, folder in runs:
        if used > budget:
            left_out += (folder / CONFLICT_JSONL).exists()
            continue
        lines = read_conflict(folder / CONFLICT_JSONL, most)
        if lines and not kept:  # the first run shows how much room a step takes
            size = len(json.dumps(packed_conflict(lines, tasks))) / len(lines)
            most = max(12, min(60, int(budget / size / methods)))
            lines = evenly(lines, most)
        diagnosis = packed_conflict(lines, tasks) if lines else cosines_of_log(
            folder / TRAINER_LOG_JSONL, line["tasks"], most
        )  # fmt: skip
        if diagnosis is not None:
            diagnosis |= {"run": line["run"], "method": line["method"], "seed": line["seed"]}
            diagnosis["taken"] = line.get("combiner", line["method"])
            diagnosis["tasks"] = list(tasks) if lines else list(line["tasks"])
            used += len(json.dumps(diagnosis, ensure_ascii=False).encode())
            kept.append(diagnosis)
    return {"runs": kept, "left_out": left_out}
