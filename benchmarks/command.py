"""The command line that the benchmarks share: how to measure, and where the result goes."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.sizes import SIZES
from benchmarks.timer import write_json

RESULTS = Path(__file__).parent / "results"

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

RECORDED = ("repeats", "warmup", "clock")
"""Settings that a reader of the numbers needs to know."""


def names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """Build the reader of an argument that lists names."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        unknown = [name for name in found if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        return found

    return read


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def positives(text: str) -> list[int]:
    """Read whole numbers above 0."""
    return [positive(one) for one in text.split(",")]


def build_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Begin a command line with what every timed benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repeats", type=positive, default=15, help="timed rounds (default 15)")
    parser.add_argument("--warmup", type=positive, default=2, help="rounds before that (default 2)")
    parser.add_argument("--threads", type=positive, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: time of this process alone")
    add_outputs(parser, name)
    return parser


def add_outputs(parser: argparse.ArgumentParser, name: str) -> None:
    """Add where the result goes."""
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--save", action="store_true", help=f"store JSON as benchmarks/results/{name}_DEVICE.json")
    where.add_argument("--out", type=Path, metavar="PATH", help="store JSON there")


def check(parser: argparse.ArgumentParser, settings: argparse.Namespace) -> None:
    """End with a sentence where settings do not go together."""
    if settings.clock == "cpu" and (settings.threads != 1 or settings.device != "cpu"):
        parser.error("--clock cpu counts waiting threads and no GPU: it needs --threads 1 --device cpu")
    if settings.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU here")
    sizes = getattr(settings, "size", [])
    for name in [sizes] if isinstance(sizes, str) else sizes:
        if SIZES[name].autocast and device_of(settings).type != "cuda":
            parser.error(f"--size {name} is run in bf16 on a GPU, and there is none here; use --size large or small")


def device_of(settings: argparse.Namespace) -> torch.device:
    """Choose the device."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(auto if settings.device == "auto" else settings.device)


def output(result: Mapping[str, Any], settings: argparse.Namespace, table: Callable[[Any], str]) -> None:
    """Print a result, and store it where asked."""
    path = settings.out
    if settings.save:
        about = result["environment"]
        device = re.sub(r"[^a-z0-9]+", "_", about["gpu"].lower()) if about["gpu"] else "cpu"
        path = RESULTS / f"{result['benchmark']}_{device}.json"
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as stream:
            write_json(result, stream)
    if settings.json:
        write_json(result, sys.stdout)
    else:
        print(table(result))


def main_of(
    arguments: Callable[[Sequence[str] | None], argparse.Namespace],
    run: Callable[[argparse.Namespace], Mapping[str, Any]],
    table: Callable[[Any], str],
) -> Callable[..., None]:
    """Build the `main` of a benchmark: read the command line, measure, print and store."""

    def main(argv: Sequence[str] | None = None) -> None:
        settings = arguments(argv)
        if getattr(settings, "threads", None):
            torch.set_num_threads(settings.threads)
        output(run(settings), settings, table)

    return main


def target_lines(targets: Sequence[Mapping[str, Any]], digits: int = 3) -> list[str]:
    """Say of every target whether it was met."""
    lines = []
    for one in targets:
        limit = f"<= {one['at_most']}" if "at_most" in one else f">= {one['at_least']}"
        met = "met" if one["met"] else "missed"
        lines.append(f"  target {one['name']} {limit}: {one['measured']:.{digits}f}, {met}")
    return lines
