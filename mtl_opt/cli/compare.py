"""`mtl-opt compare` and `mtl-opt predictions`: arguments in, tables and answers out."""

import argparse
import json
from pathlib import Path
from typing import Any

from mtl_opt.cli.data import SKIP, overrides_of

PLACEHOLDER = {"model_name_or_path": "-", "tasks": {"-": {"file": "-"}}, "output_dir": "-"}


def add_compare_verbs(verbs: Any, **settings_help: Any) -> None:
    """Describe the verbs."""
    compare = verbs.add_parser("compare", help="train with several methods and compare", **settings_help)
    compare.add_argument("config", nargs="?", help="YAML file; default: the embedded example")
    compare.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    compare.add_argument("--jobs", metavar="N", help="N runs at the same time, each in a process of its own")
    compare.add_argument("--budget", metavar="B", help="for every run: steps (200), or seconds in steps (90s, 5min)")
    compare.add_argument("--skip_bad_rows", action="store_true", help=SKIP)
    compare.set_defaults(run=_compare)
    answers = verbs.add_parser("predictions", help="answers of several runs side by side")
    answers.add_argument("folders", nargs="+", metavar="RUN", help="folders of runs, such as those of a comparison")
    answers.add_argument("--task", help="rows of this task only")
    answers.add_argument("--different", action="store_true", help="rows on which the runs differ only")
    answers.add_argument("--limit", type=int, metavar="N", help="show the first N rows only")
    answers.add_argument("--json", action="store_true", help="one JSON list on stdout")
    answers.set_defaults(run=_predictions)


def _compare(options: argparse.Namespace) -> None:
    """Compare, write the tables and print one."""
    from mtl_opt.comparison import compare, compare_config
    from mtl_opt.examples.support_desk.settings import default_settings
    from mtl_opt.report import comparison_table, write_tables
    from mtl_opt.training import override, read_yaml

    arguments = overrides_of(options)
    arguments += [f"{key}={value}" for key in ("jobs", "budget") if (value := getattr(options, key)) is not None]
    if options.config is None or ("=" in options.config and not Path(options.config).exists()):
        arguments = [*([options.config] if options.config else []), *arguments]
        compare_config(override(PLACEHOLDER, arguments))  # before time is spent on the model
        settings = override(default_settings(), arguments)
    else:
        settings = read_yaml(options.config, arguments)
    config, shared = compare_config(settings)
    lines = compare(config, shared)
    folder = Path(shared["output_dir"])
    print(comparison_table(lines))
    names = ", ".join(path.name for path in write_tables(folder, lines))
    print(f"\nEvery run:          {folder}/results.jsonl")
    print(f"Tables:             {folder}/ ({names})")
    print(f"Curves and cosines: tensorboard --logdir {folder}")
    print(f"One page of it all: mtl-opt report {folder}")


def _predictions(options: argparse.Namespace) -> None:
    """Show answers of several runs side by side."""
    from mtl_opt.report.read.predictions import side_by_side, text_of, to_json

    rows = side_by_side([Path(folder) for folder in options.folders], options.task, options.different)
    limit = None if options.limit is None else max(0, options.limit)
    print(json.dumps(to_json(rows[:limit]), ensure_ascii=False) if options.json else text_of(rows, limit))
