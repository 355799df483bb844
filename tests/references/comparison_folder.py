"""Comparison folders of any size, made of random numbers, in the form that `compare` and the monitor write."""

import json
import random
from collections.abc import Sequence
from itertools import combinations
from math import acos, cos, degrees, exp
from pathlib import Path
from typing import Any

METHODS = ("sum", "pcgrad", "cagrad", "nash_mtl", "gradnorm", "famo", "imtl_g", "aligned_mtl", "mgda", "uncertainty")
SHADOWS = ("sum", "mean", "pcgrad", "cagrad", "nash_mtl", "mgda", "gradnorm", "famo", "upgrad", "imtl_g", "aligned_mtl")
LAYERS = [f"model.layers.{i}.{part}" for i in range(6) for part in ("self_attn.q_proj", "mlp.down_proj")]
VERSIONS = {
    "mtl_opt": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "python": "3.11.9",
    "git_commit": "a16eb0c", "hardware": "2-core CPU", "time": "2026-11-21T15:00:00",
}  # fmt: skip


def write_comparison(
    folder: Path,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    tasks: Sequence[str] = ("product_qa", "complaint_core", "anger"),
    *,
    baselines: bool = True,
    steps: int = 100,
    conflict: bool = True,
    layers: Sequence[str] = tuple(LAYERS),
    shadows: Sequence[str] = SHADOWS,
) -> list[dict[str, Any]]:
    """Write `results.jsonl` and a folder per run; earlier methods are better."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed in seeds:
        for place, method in enumerate(methods):
            random_ = random.Random(f"{method} {seed}")
            line = result_line(method, None, tasks, seed, 0.62 - 0.012 * place, random_)
            lines.append(line)
            write_run(folder / line["run"], line, steps, random_)
            if conflict and len(tasks) > 1:
                write_conflict(folder / line["run"] / "conflict.jsonl", tasks, steps, layers, shadows, random_)
        for task in tasks if baselines else []:
            random_ = random.Random(f"{task} {seed}")
            line = result_line("single", task, [task], seed, 0.57, random_)
            lines.append(line)
            write_run(folder / line["run"], line, steps, random_)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    return lines


def result_line(
    method: str, task: str | None, tasks: Sequence[str], seed: int, level: float, random_: random.Random
) -> dict[str, Any]:
    """Make one line of `results.jsonl`."""
    metrics, before = {}, {}
    for index, name in enumerate(tasks):
        accuracy = min(max(level + 0.05 * index + 0.02 * random_.gauss(0, 1), 0), 1)
        metrics |= {f"eval_{name}_exact_match": accuracy, f"eval_{name}_loss": 1.2 - accuracy}
        before |= {f"eval_{name}_exact_match": 0.0, f"eval_{name}_loss": 3.0}
    safe = method.replace("/", "-")
    return {
        "run": f"single-{tasks[0]}-seed{seed}".replace("/", "-") if task else f"{safe}-seed{seed}",
        "role": "baseline" if task else "method",
        "method": method, "combiner": "sum" if task else method, "sharing": "none", "mixing": "balanced",
        "norm_matched": False, "learning_rate": 0.005, "seed": seed, "task": task, "tasks": list(tasks),
        "metrics": metrics, "non_finite": [], "before": before,
        "directions": {"exact_match": True, "loss": False},
        "main_metric": dict.fromkeys(tasks, "exact_match"),
        "conflict_rate": None if task else random_.uniform(0.2, 0.5),
        "steps_per_second": random_.uniform(2.5, 4), "peak_memory_mb": random_.uniform(600, 700),
        "train_runtime": random_.uniform(25, 40), "steps": 100, "overhead_seconds": random_.uniform(0.1, 0.6),
        "provenance": {**VERSIONS, "data_hash": "3f2a9c11d0"},
        "config": {
            "model_name_or_path": "models/tiny", "combiner": "sum" if task else method, "learning_rate": 0.005,
            "max_steps": 100, "seed": seed, "tasks": {name: {"file": f"data/{name}.jsonl"} for name in tasks},
        },
    }  # fmt: skip


def only_scores(method: str, seed: int, value: float | None, task: str | None = None) -> dict[str, Any]:
    """Make a line with one accuracy for all tasks; None is of a run that diverged."""
    tasks = [task] if task else ["qa", "情感"]
    metrics = {f"eval_{name}_accuracy": value for name in tasks}
    metrics |= {f"eval_{name}_loss": None if value is None else 1 - value for name in tasks}
    return {
        "run": f"{method}-{task or ''}{seed}", "role": "baseline" if task else "method", "method": method,
        "combiner": method.split(" ")[0], "seed": seed, "task": task, "tasks": tasks, "metrics": metrics,
        "non_finite": ["loss is not finite at step 3"] if value is None else [],
        "main_metric": dict.fromkeys(tasks, "accuracy"), "directions": {"accuracy": True, "loss": False},
    }  # fmt: skip


def write_run(folder: Path, line: dict[str, Any], steps: int, random_: random.Random) -> None:
    """Write log, results, configuration and predictions of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    final = line["metrics"]
    rows: list[dict[str, Any]] = [log_row(0, steps, line["before"])]
    for step in range(2, steps + 1, 2):
        values = {f"loss_{t}": 0.4 + 2.5 * exp(-step / 25) + 0.06 * random_.gauss(0, 1) for t in line["tasks"]}
        values |= {f"weight_{t}": random_.uniform(0.7, 1.3) for t in line["tasks"]}
        values |= {f"grad_norm_{t}": 3 * exp(-step / 60) * random_.uniform(0.8, 1.2) for t in line["tasks"]}
        rows.append(log_row(step, steps, {"loss": sum(values.values()), "lr": 0.005, **values}))
        if step % 20 == 0:
            done = 1 - exp(-4 * step / steps)
            rows.append(log_row(step, steps, {k: v + (final[k] - v) * done for k, v in line["before"].items()}))
    rows.append(log_row(steps, steps, final))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "trainer_log.jsonl").write_text(text, encoding="utf-8")
    results = {**final, **{f"before_{k}": v for k, v in line["before"].items()}, "train_steps": steps}
    results |= {k: line[k] for k in ("steps_per_second", "peak_memory_mb", "train_runtime", "conflict_rate")}
    (folder / "all_results.json").write_text(json.dumps(results, ensure_ascii=False), encoding="utf-8")
    (folder / "config.yaml").write_text(json.dumps(line["config"], ensure_ascii=False), encoding="utf-8")
    answers = ("yes", "no", "否", "refund <b>now</b>")
    predictions = [
        {"task": task, "prompt": f"Question {n}?", "predict": random_.choice(answers), "label": answers[n % 4]}
        for task in line["tasks"]
        for n in range(8)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
    (folder / "generated_predictions.jsonl").write_text(text, encoding="utf-8")


def log_row(step: int, steps: int, values: dict[str, float]) -> dict[str, Any]:
    """Make one line of `trainer_log.jsonl`."""
    return {"current_steps": step, "total_steps": steps, "percentage": 100 * step / steps, **values}


def write_conflict(
    path: Path, tasks: Sequence[str], steps: int, layers: Sequence[str], shadows: Sequence[str], random_: random.Random
) -> None:
    """Write one line of `conflict.jsonl` for every tenth step."""
    means = {pair: random_.uniform(-0.5, 0.7) for pair in combinations(range(len(tasks)), 2)}
    with path.open("w", encoding="utf-8") as file:
        for step in range(10, steps + 1, 10):
            file.write(json.dumps(conflict_line(step, tasks, means, layers, shadows, random_), ensure_ascii=False))
            file.write("\n")


def conflict_line(
    step: int,
    tasks: Sequence[str],
    means: dict[tuple[int, int], float],
    layers: Sequence[str],
    shadows: Sequence[str],
    random_: random.Random,
) -> dict[str, Any]:
    """Make one line of `conflict.jsonl`: raw cosines shrunk and noisy, corrected ones near `means`."""
    num_tasks = len(tasks)

    def matrix(value: Any, diagonal: Any = 1.0) -> list[list[Any]]:
        rows = [[diagonal] * num_tasks for _ in tasks]
        for (i, j), mean in means.items():
            rows[i][j] = rows[j][i] = value(mean)
        return rows

    def clip(value: float) -> float:
        return min(max(value, -1.0), 1.0)

    drift = cos(step / 40) / 4
    corrected = matrix(lambda mean: clip(mean + drift) if abs(mean) > 0.05 else None)
    width = 0.15 + 0.6 * exp(-step / 40)
    low = [[None if c is None else clip(c - width) for c in row] for row in corrected]
    high = [[None if c is None else clip(c + width) for c in row] for row in corrected]
    verdict = [
        [None if i == j else word(low[i][j], high[i][j]) for j in range(num_tasks)] for i in range(num_tasks)
    ]  # fmt: skip
    raw = matrix(lambda mean: clip(0.2 * (mean + drift) + random_.gauss(0, 0.08)))
    shares = [random_.uniform(0.5, 1.5) for _ in tasks]
    return {
        "step": step, "tasks": list(tasks), "cosines": raw,
        "magnitude_similarity": matrix(lambda _: random_.uniform(0.4, 1)),
        "curvature_bound": matrix(lambda _: random_.uniform(0, 0.5), 0.0),
        "condition_number": 10 ** random_.uniform(0.5, 2), "conflict_rate": random_.uniform(0, 0.6),
        "shares": [share / sum(shares) for share in shares],
        "corrected": None if step < 30 else {
            "cosines": corrected, "low": low, "high": high, "verdict": verdict,
            "signal_to_noise": [random_.uniform(0.02, 0.3) for _ in tasks], "steps": 100,
        },
        "layers": {name: matrix(lambda mean: clip(mean + random_.gauss(0, 0.3))) for name in layers} or None,
        "shadows": {name: shadow(name, num_tasks, random_) for name in shadows} or None,
    }  # fmt: skip


def word(low: float | None, high: float | None) -> str:
    """Give the verdict of an interval."""
    if low is None or high is None or low <= 0 <= high:
        return "noise"
    return "real agreement" if low > 0 else "real conflict"


def shadow(name: str, num_tasks: int, random_: random.Random) -> dict[str, Any]:
    """Make what a shadow combiner would have done."""
    weights = [random_.uniform(0.2, 2) for _ in range(num_tasks)]
    return {
        "weights": weights,
        "angle": degrees(acos(random_.uniform(0.6, 1))),
        "change": [random_.gauss(-0.02, 0.015) for _ in range(num_tasks)],
        "on_this_trajectory": name in {"gradnorm", "famo"},
        "note": "state fed every step" if name == "famo" else "",
    }


if __name__ == "__main__":
    import sys

    write_comparison(Path(sys.argv[1]), METHODS[: int(sys.argv[2])], range(int(sys.argv[3])))
