"""Does joint training help the small task, and does it matter how gradients are merged?

The embedded support desk at full length: five ways to merge against every task alone, four seeds, the same rows and
initial weights per seed. Then the plain sum against each task alone once more, with a tenth of the smallest task's
rows.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from experiments.command import say
from mtl_opt.comparison import compare, compare_config
from mtl_opt.examples.support_desk.settings import default_settings, with_weights
from mtl_opt.report import Summary, summarise, write_tables

SMALL = "anger"
FEW_ROWS = 90
"""Rows of the small task in the second comparison; the embedded data has 900."""
QUICK: dict[str, Any] = {"combiners": ["sum"], "seeds": [0], "max_steps": 60, "warmup_steps": 6, "gradient_window": 20}


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Run both comparisons; runs that are finished in `--output` are not run again."""
    own = yaml.safe_load(Path(__file__).with_name("config.yaml").read_text(encoding="utf-8"))
    settings = default_settings() | own | {"jobs": options.jobs, **(QUICK if options.quick else {})}
    settings["seeds"] = [options.seed + seed for seed in settings["seeds"]]
    folder = options.output / ("quick" if options.quick else "full")
    rows = len(_lines(Path(settings["tasks"][SMALL]["file"])))
    found, summaries = {}, {}
    for few in (rows, FEW_ROWS):
        say(f"{few} rows of {SMALL}")
        mine = {**settings, "output_dir": str(folder / f"{few}-rows")}
        if few < rows:
            mine |= {"combiners": ["sum"], "tasks": with_rows(settings["tasks"], few, folder)}
        summaries[few], found[str(few)] = one_comparison(mine)
    judged = (quick_verdicts if options.quick else verdicts)(summaries[rows], summaries[FEW_ROWS])
    return {"seeds": settings["seeds"], "rows": found, "verdicts": judged}


def with_rows(tasks: Mapping[str, Any], few: int, folder: Path) -> dict[str, Any]:
    """Take only the first rows of the small task."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{SMALL}.{few}.jsonl"
    path.write_text("\n".join(_lines(Path(tasks[SMALL]["file"]))[:few]) + "\n", encoding="utf-8")
    return {**tasks, SMALL: {**tasks[SMALL], "file": str(path)}}


def one_comparison(settings: Mapping[str, Any]) -> tuple[Summary, dict[str, Any]]:
    """Run one comparison and write its tables."""
    config, shared = compare_config(with_weights(settings))
    lines = compare(config, shared)
    folder = Path(shared["output_dir"])
    summary = summarise(lines)
    write_tables(folder, summary)
    main = summary.main_metric
    methods = [*summary.methods, *([summary.baselines] if summary.baselines else [])]
    told = {
        "scores": {m.method: {task: m.scores[task][main[task]].mean for task in summary.tasks} for m in methods},
        "losses": {m.method: {task: m.scores[task]["loss"].mean for task in summary.tasks} for m in methods},
        "delta_m": {m.method: [m.delta_m.mean, m.delta_m.low, m.delta_m.high] for m in summary.methods},
        "delta_m_loss": {m.method: m.delta_m_loss.mean for m in summary.methods},
        "conflict_rate": {m.method: m.costs["conflict_rate"].mean for m in summary.methods},
        "transfer": [one.sentence for one in summary.transfer],
        "against_sum": [one.sentence for one in summary.against_reference],
        "cosines_of_sum": windows(
            [folder / run for m in summary.methods if m.method == "sum" for run in m.runs], settings["gradient_window"]
        ),
    }
    return summary, told


def windows(runs: Sequence[Path], size: int) -> dict[str, dict[str, Any]]:
    """Read the corrected cosines of all windows that share no step."""
    found: dict[str, dict[str, Any]] = {}
    for text in (text for run in runs for text in _lines(run / "conflict.jsonl")):
        line = json.loads(text)
        if line["corrected"] is None or line["step"] % size:
            continue
        for (i, first), (j, second) in combinations(enumerate(line["tasks"]), 2):
            at = found.setdefault(f"{first}, {second}", {}).setdefault(str(line["step"]), {"cosines": []})
            at["cosines"].append(line["corrected"]["cosines"][i][j])
            verdict = line["corrected"]["verdict"][i][j]
            at[verdict] = at.get(verdict, 0) + 1
    return found


def verdicts(many: Summary, few: Summary) -> dict[str, bool]:
    """Say what was found true; a difference counts where its paired test, adjusted by Holm, tells it from chance."""
    moved = {(one.method, one.task): one for one in many.transfer}
    scarce = {(one.method, one.task): one for one in few.transfer}
    sums = [one for (method, _), one in moved.items() if method == "sum"]
    gain, scarce_gain = moved["sum", SMALL].difference, scarce["sum", SMALL].difference
    return {
        f"Joint training with a plain sum helps `{SMALL}` over training it alone.": (
            moved["sum", SMALL].verdict == "better"
        ),
        f"With {FEW_ROWS} rows of `{SMALL}` it helps, too.": scarce["sum", SMALL].verdict == "better",
        f"The mean gain of `{SMALL}` is larger with {FEW_ROWS} rows.": (
            gain is not None and scarce_gain is not None and scarce_gain > gain
        ),
        "No task loses by joint training with a plain sum.": all(one.verdict != "worse" for one in sums),
        "Some other way to merge can be told from the plain sum by Δm.": any(
            one.verdict in {"better", "worse"} for one in many.against_reference
        ),
    }


def quick_verdicts(many: Summary, few: Summary) -> dict[str, bool]:
    """Say what a single seed can show."""
    joint = next(method for method in many.methods if method.method == "sum")
    answers = [joint.scores[task][many.main_metric[task]].mean for task in (SMALL, "complaint_core")]
    transfer = [*many.transfer, *few.transfer]
    return {
        f"The sum answers over half of `{SMALL}` and some of `complaint_core` rightly.": (
            None not in answers and (answers[0] or 0) > 0.5 and (answers[1] or 0) > 0
        ),
        "With one seed no difference is called one.": all(one.verdict == "too few seeds" for one in transfer),
    }


def _lines(path: Path) -> list[str]:
    """Read the lines of a JSONL file."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
