"""What do 32 tasks of three kinds look like through one registry, and what does each mixing give them?"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_opt.training import read_yaml, train_config
from mtl_opt.training.preview.data import plan_draws, stats

CONFIG = Path(__file__).with_name("config.yaml")
STEPS = 200


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Measure rows, tokens and duplicates of every task, and what the sampler delivers."""
    config = train_config(read_yaml(str(CONFIG), []))
    found, plan = stats(config), plan_draws(config, STEPS // 4 if options.quick else STEPS)
    tasks = found["tasks"]
    wanted = {task: entry["shares"][found["mixing"]] for task, entry in tasks.items()}
    largest = max(abs(plan["tasks"][task]["share"] - share) for task, share in wanted.items())
    return {
        "tasks": tasks,
        "plan": plan["tasks"],
        "largest_deviation_of_a_share": largest,
        "verdicts": {
            "All 32 tasks have rows to train on.": len(tasks) == 32 and all(e["rows"] for e in tasks.values()),
            "Every task gets its share of the rows to within a tenth of a percent.": largest < 1e-3,
        },
    }
