"""`mtl-opt list`: what can be chosen, from the registries themselves."""

import argparse
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from mtl_opt.cli.data import print_table

Table = dict[str, dict[str, Any]]
"""What is known of each entry of a registry, by name."""


def add_list_verb(verbs: Any) -> None:
    """Add the verb to the command line."""
    listing = verbs.add_parser("list", help="list what can be chosen")
    listing.add_argument("what", choices=sorted(TABLES))
    listing.add_argument("--json", action="store_true", help="one JSON object on stdout, keyed by name")
    listing.set_defaults(run=run_list)


def run_list(options: argparse.Namespace) -> None:
    """Print a registry."""
    build, columns = TABLES[options.what]
    table = build()
    if options.json:
        print(json.dumps(table, ensure_ascii=False, indent=2))
        return
    rows = [[name, *(_cell(entry[column]) for column in columns)] for name, entry in table.items()]
    print_table(["name", *columns], rows)


def _cell(value: Any) -> str:
    """Write a value for people."""
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)


def _arguments(cls: type, *without: str) -> list[str]:
    """Name the arguments of a class."""
    return [key for key in inspect.signature(cls).parameters if key not in without]


def _combiners() -> Table:
    """Describe the combiners."""
    from mtl_opt.combiners import COMBINERS

    return {
        name: {"class": cls.__name__, "requires": cls.requires, "scale": cls.scale, "paper": cls.paper}
        for name, cls in COMBINERS.items()
    }


def _mixings() -> Table:
    """Describe the mixings."""
    from mtl_opt.data import MIXINGS

    return {
        name: {
            "class": cls.__name__, "arguments": _arguments(cls, "facts"), "learns": cls.learns, "summary": cls.summary
        }
        for name, cls in MIXINGS.items()
    }  # fmt: skip


def _sharing() -> Table:
    """Describe the ways of sharing."""
    from mtl_opt.models import SHARING

    return {
        name: {"class": cls.__name__, "arguments": _arguments(cls), "summary": cls.summary, "paper": cls.paper}
        for name, cls in SHARING.items()
    }


def _heads() -> Table:
    """Describe the heads."""
    from mtl_opt.models import HEADS, head_options

    return {
        name: {
            "class": cls.__name__, "reads": cls.reads, "arguments": list(head_options(name)), "summary": cls.summary
        }
        for name, cls in HEADS.items()
    }  # fmt: skip


TABLES: dict[str, tuple[Callable[[], Table], Sequence[str]]] = {
    "combiners": (_combiners, ("class", "requires", "scale", "paper")),
    "heads": (_heads, ("arguments", "summary")),
    "mixing": (_mixings, ("arguments", "summary")),
    "sharing": (_sharing, ("arguments", "summary", "paper")),
}
"""What can be listed: what describes it, and the columns shown."""
