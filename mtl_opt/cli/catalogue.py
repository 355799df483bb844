"""`mtl-opt list` and `env`: what can be chosen, from the registries themselves, and what is installed."""

import argparse
import inspect
import json
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from mtl_opt.cli.common import JSON, print_table

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "numpy", "scipy", "tensorboard")

Table = dict[str, dict[str, Any]]
"""Properties of each entry of a registry, by name."""


def add_list(verbs: Any) -> None:
    """Add `list` to the command line."""
    verb = verbs.add_parser("list", help="list what can be chosen")
    verb.add_argument("what", choices=sorted(TABLES))
    verb.add_argument("--json", action="store_true", help=f"{JSON}, keyed by name")
    verb.set_defaults(run=_list)


def add_env(verbs: Any) -> None:
    """Add `env` to the command line."""
    verbs.add_parser("env", help="versions and hardware, for bug reports").set_defaults(run=_env)


def _list(options: argparse.Namespace) -> None:
    """Print a registry."""
    build, columns = TABLES[options.what]
    table = build()
    if options.json:
        print(json.dumps(table, ensure_ascii=False, indent=2))
        return
    rows = [[name, *(_cell(entry[column]) for column in columns)] for name, entry in table.items()]
    print_table(["name", *columns], rows)


def _env(options: argparse.Namespace) -> None:  # noqa: ARG001 - every verb takes its options
    """Print what a bug report needs."""
    import torch

    print(f"mtl_opt       {metadata.version('mtl_opt')}")
    print(f"python        {platform.python_version()}")
    print(f"platform      {platform.platform()}")
    for package in PACKAGES:
        try:
            print(f"{package:14}{metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package:14}not installed")
    print(f"threads       {torch.get_num_threads()}")
    for index in range(torch.cuda.device_count()):
        print(f"gpu {index}         {torch.cuda.get_device_name(index)}")
    if not torch.cuda.is_available():
        print("gpu           none")


def _cell(value: Any) -> str:
    """Format a value for a table."""
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)


def _arguments(cls: type, *without: str) -> list[str]:
    """List the arguments of a class."""
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
"""What can be listed: the function that describes it, and the columns of its table."""
