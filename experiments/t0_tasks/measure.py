"""Do the gradients of four real text tasks conflict on a tiny pretrained Llama, and do combiners differ there?"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.t0_tasks.prepare import TASKS, prepare
from mtl_opt.comparison import compare, compare_config
from mtl_opt.report import summarise, write_tables
from mtl_opt.training import read_yaml

CONFIG = Path(__file__).with_name("config.yaml")
SHARED = Path("../shared")
QUICK: dict[str, Any] = {"combiners": ["sum", "pcgrad"], "seeds": [0], "max_steps": 20, "gradient_window": 20}


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Write the rows, then compare five ways to merge gradients with every task alone."""
    prepare(SHARED / "data/t0_per_task", SHARED / "models/tinystories-260k", options.output / "data")
    folder = options.output / ("quick" if options.quick else "full")
    settings = {**read_yaml(str(CONFIG), []), "output_dir": str(folder), "jobs": options.jobs}
    settings |= {"model_name_or_path": str(options.output / "data/model"), **(QUICK if options.quick else {})}
    settings["tasks"] = {
        task: {part: str(options.output / "data" / f"{task}.{name}.jsonl") for part, name in PARTS.items()}
        for task in TASKS
    }
    settings["seeds"] = [options.seed + seed for seed in settings["seeds"]]
    lines = compare(*compare_config(settings))
    write_tables(folder, lines)
    summary = summarise(lines)
    rates = {method.method: method.costs["conflict_rate"].mean for method in summary.methods}
    return {
        "losses": {m.method: {t: m.scores[t]["loss"].mean for t in summary.tasks} for m in summary.methods},
        "conflict_rate": rates,
        "against_sum": [one.sentence for one in summary.against_reference],
        "verdicts": {"Task gradients conflict in some steps under a plain sum.": rates["sum"] > 0},
    }


PARTS = {"file": "train", "eval_file": "eval"}
