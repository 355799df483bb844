"""The command line `mtl-opt`."""

from mtl_opt.cli.entry import main

__all__ = ["main"]
