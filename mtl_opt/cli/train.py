"""`mtl-opt train`, `plan` and `eval`: one run, what it would take, and its numbers again."""

import argparse
import os
from pathlib import Path
from typing import Any

from mtl_opt.cli.common import JSON, add_config, add_skip_bad_rows, keys_help, print_json, read_run_config


def add_train(verbs: Any, with_keys: bool) -> None:
    """Add `train` to the command line."""
    verb = verbs.add_parser("train", help="train with one combiner", **keys_help("train", with_keys))
    add_config(verb)
    add_skip_bad_rows(verb)
    verb.set_defaults(run=_train)


def add_plan(verbs: Any) -> None:
    """Add `plan` to the command line."""
    verb = verbs.add_parser("plan", help="memory, steps, tokens and gradient engine, without loading weights")
    add_config(verb)
    verb.add_argument("--json", action="store_true", help=f"{JSON}, sizes in bytes")
    verb.set_defaults(run=_plan)


def add_eval(verbs: Any) -> None:
    """Add `eval` to the command line."""
    verb = verbs.add_parser("eval", help="measure a finished run again, from its files alone")
    verb.add_argument("output_dir", help="folder of the run")
    verb.add_argument("--json", action="store_true", help=JSON)
    verb.set_defaults(run=_eval)


def _train(options: argparse.Namespace) -> None:
    """Train once and print the results."""
    from mtl_opt.training import train

    config = read_run_config(options)
    results = train(config)
    if os.environ.get("RANK", "0") != "0":
        return
    _print_metrics(results)
    print(f"\nResults and adapter: {config.output_dir}")
    print(f"Curves and cosines:  tensorboard --logdir {config.output_dir}")


def _plan(options: argparse.Namespace) -> None:
    """Print what a run would take."""
    from mtl_opt.training.preview.plan import plan_run, plan_text

    found = plan_run(read_run_config(options))
    if options.json:
        print_json(found.to_json())
    else:
        print(plan_text(found))


def _eval(options: argparse.Namespace) -> None:
    """Measure a finished run from its files."""
    from mtl_opt.training.run.measurement import evaluate_folder

    results = evaluate_folder(Path(options.output_dir))
    if options.json:
        print_json(results)
    else:
        _print_metrics(results)


def _print_metrics(results: dict[str, Any]) -> None:
    """Print the metrics of every task, after training and, where known, before."""
    for key, value in results.items():
        if key.startswith("eval_"):
            before = results.get(f"before_{key}")
            print(f"{key:40} {value:.4f}" + (f"   (before {before:.4f})" if before is not None else ""))
