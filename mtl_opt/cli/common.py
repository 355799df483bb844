"""What several verbs of the command line have in common: arguments, the configuration, tables and JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

JSON = "one JSON object on stdout"


def add_config(verb: argparse.ArgumentParser) -> None:
    """Add the arguments `config` and `key=value ...`."""
    verb.add_argument("config", help="YAML file; may be left out where settings say all")
    verb.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, also --key value, that win over the file"
    )


def add_skip_bad_rows(verb: argparse.ArgumentParser) -> None:
    """Add `--skip_bad_rows`."""
    verb.add_argument("--skip_bad_rows", action="store_true", help="leave bad rows out, count and list them")


def overrides_of(options: argparse.Namespace) -> list[str]:
    """Collect the settings of the command line as `key=value`."""
    return [*options.overrides, *(["skip_bad_rows=true"] if getattr(options, "skip_bad_rows", False) else [])]


def read_run_config(options: argparse.Namespace) -> Any:  # -> TrainConfig
    """Read the configuration of one run."""
    from mtl_opt.training import train_config

    return train_config(read_settings(options))


def read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Read the settings of a verb: a YAML and what wins over it, or settings alone."""
    from mtl_opt.training import override, read_yaml

    words = overrides_of(options)
    if "=" in options.config and not Path(options.config).exists():
        return override({}, [options.config, *words])
    return read_yaml(options.config, words)


def keys_help(verb: str, with_keys: bool) -> dict[str, Any]:
    """List the keys of the configuration below a verb's help; reading them takes seconds, so only when it is shown."""
    if not with_keys:
        return {}
    from dataclasses import MISSING, fields

    from mtl_opt.training.config.comparison_keys import ONE_RUN_KEYS, CompareConfig
    from mtl_opt.training.config.run_config import TrainConfig

    specs = {spec.name: spec for spec in fields(TrainConfig)}
    if verb == "compare":
        one_run = {name: spec for name, spec in specs.items() if name not in ONE_RUN_KEYS}
        specs = one_run | {spec.name: spec for spec in fields(CompareConfig)}
    lines = ["keys of the configuration (default):"]
    for spec in specs.values():
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        lines.append(f"  {spec.name:30} {spec.metadata['text']} ({default})")
    return {"epilog": "\n".join(lines), "formatter_class": argparse.RawDescriptionHelpFormatter}


def print_json(value: object) -> None:
    """Print a value as JSON in one line."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns; numbers on the right."""
    from unicodedata import east_asian_width

    def width(text: str) -> int:
        return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)

    cells = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(width(line[i]) for line in cells) for i in range(len(heads))]
    numeric = [all(isinstance(row[i], int | float) or row[i] == "-" for row in rows) for i in range(len(heads))]
    for line in cells:
        padded = []
        for cell, size, right in zip(line, widths, numeric, strict=True):
            blank = " " * (size - width(cell))
            padded.append(blank + cell if right else cell + blank)
        print("  ".join(padded).rstrip())
