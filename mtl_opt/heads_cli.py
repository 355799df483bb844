"""`mtl-opt list heads`: types of heads, what an answer is, and their options."""

import argparse
import inspect
import json
from typing import Any

from mtl_opt.data_cli import print_table

ANSWERS = {"row": "one label or number per row", "words": "one label per word", "text": "text"}


def list_heads(options: argparse.Namespace) -> None:
    """List the registry of heads.

    Args:
        options: The arguments.
    """
    from mtl_opt.models import HEADS, head_options

    table: dict[str, dict[str, Any]] = {}
    for name, cls in HEADS.items():
        given = {key: None if value is inspect.Parameter.empty else value for key, value in head_options(name).items()}
        first = (cls.__doc__ or "").strip().split("\n")[0].rstrip(".")
        table[name] = {"class": cls.__name__, "answers": ANSWERS[cls.reads], "options": given, "what": first}
    if options.json:
        print(json.dumps(table, ensure_ascii=False, indent=2))
        return
    rows = []
    for name, entry in table.items():
        written = (key if value is None else f"{key}={value}" for key, value in entry["options"].items())
        rows.append([name, entry["class"], entry["answers"], ", ".join(written)])
    print_table(["type", "class", "answers", "options (default)"], rows)
