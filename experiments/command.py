"""The command line of every experiment: `python -m experiments.NAME [--quick] --json` prints one JSON object."""

import argparse
import inspect
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.timer import environment
from mtl_opt.errors import InputError

Measure = Callable[[argparse.Namespace], Mapping[str, Any]]


def run(name: str) -> None:
    """Run the experiment of a folder: its module `measure` has the function of that name, perhaps `add_arguments`."""
    module = import_module(f"experiments.{name}.measure")
    sys.exit(main(module.measure, getattr(module, "add_arguments", lambda _: None)))


def main(
    measure: Measure,
    add_arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run one experiment from the command line and print its result.

    Every experiment knows `--quick`, `--json`, `--save`, `--seed`, `--jobs` and `--output`. Progress goes to stderr.
    """
    module = inspect.getmodule(measure)
    assert module is not None
    assert module.__file__ is not None
    name = (module.__package__ or module.__name__).rpartition(".")[2]
    options = _parser(module.__doc__ or name, name, add_arguments).parse_args(arguments)
    torch.set_num_threads(1)  # the same numbers on every machine; runs are spread over processes instead
    begin = time.perf_counter()
    try:
        found = measure(options)
    except InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    say(f"{name}: {time.perf_counter() - begin:.0f} s")
    result = {
        "experiment": name,
        "quick": options.quick,
        "seed": options.seed,
        **plain(found),
        "environment": environment(torch.device("cpu")),
    }
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
    if options.save:
        kept = Path(module.__file__).with_name("result_quick.json" if options.quick else "result.json")
        kept.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else verdict_lines(result))
    return 0


def _parser(doc: str, name: str, add_arguments: Callable[[argparse.ArgumentParser], object]) -> argparse.ArgumentParser:
    """Describe the options that all experiments share, and those of this one."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="at most 2 minutes on 2 cores")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout; default: the verdicts as text")
    parser.add_argument("--save", action="store_true", help="keep the JSON in the experiment's folder")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--jobs", type=_positive, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    parser.add_argument("--output", type=Path, default=Path("outputs") / name, help="folder for data and plots")
    add_arguments(parser)
    return parser


def _positive(text: str) -> int:
    """Read a number of processes."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def say(sentence: str) -> None:
    """Report progress on stderr."""
    print(sentence, file=sys.stderr, flush=True)


def verdict_lines(result: Mapping[str, Any]) -> str:
    """Lay the verdicts out for reading."""
    lines = [f"  {'true ' if holds else 'FALSE'}  {sentence}" for sentence, holds in result["verdicts"].items()]
    return "\n".join([f"{result['experiment']} ({'quick' if result['quick'] else 'full'})", *lines])


def plain(value: Any) -> Any:
    """Turn a result into what JSON can hold: rounded to 6 digits, numbers that are none as text.

    Examples:
        >>> plain({"loss": torch.tensor([1 / 3, float("nan")]), "reached": True})
        {'loss': [0.333333, 'nan'], 'reached': True}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # tensors, and arrays and scalars of NumPy
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def in_processes(jobs: int, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], what: str) -> list[Any]:
    """Call a function with many arguments, in a few processes with one thread each."""
    listed = list(calls)
    answers: list[Any] = [None] * len(listed)
    if jobs == 1 or len(listed) < 2:
        for place, call in enumerate(listed):
            answers[place] = function(*call)
            say(f"{what}: {place + 1} of {len(listed)}")
        return answers
    # A fork of a process that has used threads may hang; a new interpreter cannot.
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        places = {pool.submit(function, *call): place for place, call in enumerate(listed)}
        for done, future in enumerate(as_completed(places)):
            answers[places[future]] = future.result()
            say(f"{what}: {done + 1} of {len(listed)}")
    return answers
