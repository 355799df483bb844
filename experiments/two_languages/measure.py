"""Do Chinese and English instruction tasks of a LLaMA-Factory folder pull one model apart?"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_opt.training import read_yaml, train, train_config

CONFIG = Path(__file__).with_name("config.yaml")


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Train once with PCGrad and read the cosines of the task gradients from its log."""
    folder = options.output / ("quick" if options.quick else "full")
    mine = [f"output_dir={folder}", f"seed={options.seed}", "resume_from_checkpoint=true"]
    settings = read_yaml(str(CONFIG), mine)
    if options.quick:
        settings |= {"max_steps": 10}
    results = train(train_config(settings))
    lines = [json.loads(text) for text in (folder / "conflict.jsonl").read_text(encoding="utf-8").splitlines()]
    tasks = lines[-1]["tasks"]
    losses = {task: [results[f"before_eval_{task}_loss"], results[f"eval_{task}_loss"]] for task in tasks}
    return {
        "losses": losses,
        "cosines": [{"step": line["step"], "cosines": line["cosines"]} for line in lines],
        "conflict_rate": [line["conflict_rate"] for line in lines],
        "verdicts": {f"The loss of `{task}` falls.": after < before for task, (before, after) in losses.items()},
    }
