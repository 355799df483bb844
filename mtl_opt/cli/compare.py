"""`mtl-opt compare`: several methods trained, tables written, one of them printed."""

import argparse
from pathlib import Path
from typing import Any

from mtl_opt.cli.common import add_skip_bad_rows, keys_help, overrides_of

PLACEHOLDER = {"model_name_or_path": "-", "tasks": {"-": {"file": "-"}}, "output_dir": "-"}
"""Stands for the embedded example while the overrides are checked: building its model takes time."""


def add_compare(verbs: Any, with_keys: bool) -> None:
    """Add `compare` to the command line."""
    verb = verbs.add_parser("compare", help="train with several methods and compare", **keys_help("compare", with_keys))
    verb.add_argument("config", nargs="?", help="YAML file; default: the embedded example")
    verb.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, also --key value, that win over the file"
    )
    verb.add_argument("--jobs", metavar="N", help="N runs at the same time, each in a process of its own")
    verb.add_argument("--budget", metavar="B", help="for every run: steps (200), or seconds in steps (90s, 5min)")
    add_skip_bad_rows(verb)
    verb.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    """Compare, write the tables and print one."""
    from mtl_opt.comparison import compare, compare_config
    from mtl_opt.examples.support_desk.settings import default_settings, with_weights
    from mtl_opt.report import comparison_table, summarise, write_tables
    from mtl_opt.training import override, read_yaml

    arguments = overrides_of(options)
    arguments += [f"{key}={value}" for key in ("jobs", "budget") if (value := getattr(options, key)) is not None]
    if options.config is None or ("=" in options.config and not Path(options.config).exists()):
        arguments = [*([options.config] if options.config else []), *arguments]
        compare_config(override(PLACEHOLDER, arguments))
        settings = with_weights(override(default_settings(), arguments))
    else:
        settings = read_yaml(options.config, arguments)
    config, shared = compare_config(settings)
    summary = summarise(compare(config, shared))
    folder = Path(shared["output_dir"])
    print(comparison_table(summary))
    names = ", ".join(path.name for path in write_tables(folder, summary))
    print(f"\nEvery run:          {folder}/results.jsonl")
    print(f"Tables:             {folder}/ ({names})")
    print(f"Curves and cosines: tensorboard --logdir {folder}")
    print(f"One page of it all: mtl-opt report {folder}")
