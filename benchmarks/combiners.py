"""What does a combiner cost: its weights alone, and its pass over the Jacobian, against the floor and TorchJD?

    python -m benchmarks.combiners [--json] [--methods upgrad,mgda] [--tasks 8] [--params 4000000]
                                   [--weights-tasks 8,40] [--repeats 15] [--threads 2]

*Forward*: `combiner(jacobian)` beside the least that any method of the Gramian must do, one `J @ J.T` and one `w @ J`,
beside the same for two samples, and beside one read of the Jacobian for methods that need the rows. *Weights*:
`combiner.weights(gramian)` on one core,
for random gradients and for stationary ones, whose rows add up to 0.
"""

import argparse
import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.command import CLOCKS, RECORDED, build_parser, device_of, names, output, positive, positives
from benchmarks.command import check as check_settings
from benchmarks.peers import PEER, failure, missing, peer
from benchmarks.timer import environment, interleaved, peak_bytes, summary, synchronizer
from mtl_opt.combiners import COMBINERS, Combiner, TrimmedMean
from mtl_opt.linalg import gramian

FORWARD_LIMIT = 1.15
"""Target: the largest `forward / floor` of a method that requires a Gramian."""

READ_LIMIT = {"graddrop": 8.0, "trimmed_mean": 3.0, "trimmed_mean_2": 6.0}
"""Targets: the largest `forward / read` of methods that need the rows."""

WEIGHTS_LIMIT = {"upgrad": 3e-3, "cagrad": 3e-3, "mgda": 3e-3}
"""Targets: the most seconds for the weights of 40 tasks; 1 ms for the methods that are not named."""

CALLS = 5
"""Calls of `weights` that are timed together: one alone is close to what the timer and a cold cache take."""

TARGET_TASKS = {"forward": 8, "weights": 40}
"""Numbers of tasks that the targets are for."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = build_parser("combiners", __doc__)
    parser.add_argument("--methods", type=names(list(COMBINERS)), default=list(COMBINERS), help="default: all")
    parser.add_argument("--tasks", type=positive, default=8, help="tasks of the forward part (default 8)")
    parser.add_argument("--params", type=positive, default=4_000_000, help="parameters (default 4 million)")
    parser.add_argument("--weights-tasks", type=positives, default=[8, 40])
    parser.add_argument("--no-peers", action="store_true", help="leave TorchJD out")
    settings = parser.parse_args(argv)
    check_settings(parser, settings)
    return settings


def gradients(num_tasks: int, num_params: int, device: torch.device, stationary: bool = False) -> Tensor:
    """Draw gradients, always the same."""
    rows = torch.randn(num_tasks, num_params, generator=torch.Generator().manual_seed(0)).to(device)
    return rows - rows.mean(0) if stationary else rows


def measure_forward(methods: list[str], settings: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time the pass over the Jacobian."""
    rows = gradients(settings.tasks, settings.params, device)
    losses, fixed = torch.ones(settings.tasks, device=device), torch.ones(settings.tasks, device=device)
    combiners = {name: COMBINERS[name]() for name in methods if COMBINERS[name].requires != "losses"}
    halves = torch.stack([rows, rows.flip(1)]) if any(c.requires == "halves" for c in combiners.values()) else rows
    inputs = {name: halves if c.requires == "halves" else rows for name, c in combiners.items()}
    if "trimmed_mean" in combiners:
        combiners["trimmed_mean_2"], inputs["trimmed_mean_2"] = TrimmedMean(2), rows
    variants: dict[str, Callable[[], Any]] = {
        "read": rows.sum,
        "floor": lambda: (gramian(rows), fixed @ rows),
        **({"floor of halves": partial(_floor_of_halves, halves, fixed)} if halves is not rows else {}),
        **{name: _forward(combiner, inputs[name], losses) for name, combiner in combiners.items()},
    }
    timings = timed(variants, settings, device, f"forward, {settings.tasks} tasks")
    found = {}
    for name, combiner in combiners.items():
        base = "read" if combiner.requires == "jacobian" else "floor"
        least = timings["floor of halves" if combiner.requires == "halves" else base]
        found[name] = {"seconds": timings[name].summary, f"ratio_to_{base}": timings[name].ratio_to(least)}
        if base == "read":  # a copy of a fresh one: what a method keeps between steps counts
            combiner.reset()
            peak = peak_bytes(partial(_forward, copy.deepcopy(combiner), rows, losses), device)
            found[name]["peak_in_jacobians"] = peak / (rows.numel() * rows.element_size())
    seconds = {name: timings[name].summary for name in ("read", "floor")}
    return {"tasks": settings.tasks, "params": settings.params, "seconds": seconds, "methods": found}


def _floor_of_halves(halves: Tensor, fixed: Tensor) -> None:
    """Do the least that a method of two samples must do: one `J1 @ J2.T`, one `w @ J1` and one `w @ J2`."""
    first, second = halves
    _ = first @ second.T, fixed @ first + fixed @ second


def _forward(combiner: Combiner, rows: Tensor, losses: Tensor) -> Callable[[], Any]:
    """Build the pass of one combiner over the Jacobian."""
    return lambda: combiner(rows, losses)


def measure_weights(
    methods: list[str], num_tasks: int, stationary: bool, settings: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Time the weights alone, beside TorchJD."""
    rows = gradients(num_tasks, 4 * num_tasks, device, stationary)
    inner, losses = gramian(rows), torch.linspace(0.5, 2.0, num_tasks, device=device)
    variants: dict[str, Callable[[], Any]] = {}
    for name in (name for name in methods if COMBINERS[name].requires not in {"jacobian", "window"}):
        variants[name] = partial(_several, COMBINERS[name]().weights, inner, losses)
        if not settings.no_peers and name in PEER and not missing(name):
            variants[f"torchjd {name}"] = partial(_several, peer(name, num_tasks), rows, inner)
    failed = {name: why for name, why in ((n, failure(v)) for n, v in variants.items()) if why}
    variants = {name: variant for name, variant in variants.items() if name not in failed}
    kind = "stationary" if stationary else "random"
    timings = timed(variants, settings, device, f"weights, {num_tasks} tasks, {kind}")
    found: dict[str, Any] = {}
    for name in (name for name in timings if not name.startswith("torchjd ")):
        ours, its = timings[name], timings.get(f"torchjd {name}")
        found[name] = {"seconds": summary([s / CALLS for s in ours.seconds])}
        if its:
            found[name]["torchjd_seconds"] = summary([s / CALLS for s in its.seconds])
            found[name]["torchjd_ratio"] = its.ratio_to(ours)
    return {"tasks": num_tasks, "gradients": kind, "failed": failed, "methods": found}


def _several(call: Callable[[Tensor, Tensor], Any], *inputs: Tensor) -> None:
    """Call `CALLS` times."""
    for _ in range(CALLS):
        call(*inputs)


def timed(
    variants: dict[str, Callable[[], Any]], settings: argparse.Namespace, device: torch.device, title: str
) -> dict[str, Any]:
    """Time variants in turns, with a progress bar."""
    clock = CLOCKS[settings.clock]
    with tqdm(total=settings.repeats + settings.warmup, desc=title, unit="round", file=sys.stderr) as bar:
        return interleaved(variants, settings.repeats, settings.warmup, synchronizer(device), bar.update, clock)


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare what was measured with the project's targets."""
    found: list[tuple[str, float, float]] = []
    forward = result["forward"]
    for name, one in forward["methods"].items() if forward["tasks"] == TARGET_TASKS["forward"] else ():
        if "ratio_to_floor" in one:
            found.append((f"{name}: forward / floor", one["ratio_to_floor"].median, FORWARD_LIMIT))
        if name in READ_LIMIT:
            found.append((f"{name}: forward / read", one["ratio_to_read"].median, READ_LIMIT[name]))
            found.append((f"{name}: peak memory / Jacobian", one["peak_in_jacobians"], 1.0))
    for part in result["weights"]:
        for name, one in part["methods"].items() if part["tasks"] == TARGET_TASKS["weights"] else ():
            limit = WEIGHTS_LIMIT.get(name, 1e-3)
            found.append((f"{name}: seconds for weights, {part['gradients']}", one["seconds"].median, limit))
    return [{"name": n, "measured": value, "at_most": limit, "met": value <= limit} for n, value, limit in found]


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = device_of(settings)
    result: dict[str, Any] = {
        "benchmark": "combiners",
        "environment": environment(device),
        "settings": {name: getattr(settings, name) for name in RECORDED},
        "left_out": {} if settings.no_peers else {n: missing(n) for n in settings.methods if n in PEER and missing(n)},
        "forward": measure_forward(settings.methods, settings, device),
    }
    torch.set_num_threads(1)
    result["weights"] = [
        measure_weights(settings.methods, num_tasks, stationary, settings, device)
        for num_tasks in settings.weights_tasks
        for stationary in (False, True)
    ]
    return {**result, "targets": targets(result)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    settings = arguments(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that gradients are stationary is worth a warning in training, not here
        result = run(settings)
    output(result, settings, table)


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    about, forward = result["environment"], result["forward"]
    lines = [f"{about['gpu'] or about['cpu']}, {about['cores']} cores, {about['threads']} threads"]
    lines += [f"torchjd {name} is left out: {why}" for name, why in result["left_out"].items()]
    base = ", ".join(f"{name} {one.median * 1e3:.1f} ms" for name, one in forward["seconds"].items())
    lines += ["", f"forward: {forward['tasks']} tasks x {forward['params']} parameters; {base}"]
    for name, one in forward["methods"].items():
        kind = "floor" if "ratio_to_floor" in one else "read"
        lines.append(
            f"  {name:<18}{one['seconds'].median * 1e3:>9.1f} ms{one[f'ratio_to_{kind}'].median:>8.2f} x {kind}"
        )
    for part in result["weights"]:
        lines += ["", f"weights: {part['tasks']} tasks, {part['gradients']} gradients, one core"]
        for name, one in part["methods"].items():
            its = f"{one['torchjd_seconds'].median * 1e3:>10.2f} ms torchjd" if "torchjd_seconds" in one else ""
            lines.append(f"  {name:<18}{one['seconds'].median * 1e3:>9.3f} ms{its}")
        lines += [f"  {name} failed: {why}" for name, why in part["failed"].items()]
    missed = [target for target in result["targets"] if not target["met"]]
    lines += ["", f"{len(result['targets']) - len(missed)} of {len(result['targets'])} targets met"]
    lines += [f"  missed: {t['name']} {t['measured']:.4g}, at most {t['at_most']:.4g}" for t in missed]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
