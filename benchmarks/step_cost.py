"""What does one training step cost with a gradient per task, against plain joint training and against TorchJD?

    python -m benchmarks.step_cost [--json] [--tasks 2,4,8] [--size large,small] [--repeats 15] [--threads 2]

A step is forward, backward and combination into `.grad`; the optimizer, the same for all, is left out.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.timer import Timings, environment, interleaved, peak_bytes, synchronizer, write_json
from benchmarks.variants import VARIANTS, build_step, check, missing
from benchmarks.workload import LORA_RANK, SIZES, Workload, build_model, build_workload

ONE_PASS_LIMIT = {"large": 1.05, "small": 1.15}
"""Targets: the largest `one_pass / plain`, at 4 and 8 tasks."""

TORCHJD_LIMIT = {4: 2.5, 8: 4.0}
"""Targets: the smallest `torchjd / one_pass`, by number of tasks."""


RECORDED = ("repeats", "warmup", "clock")
"""Settings that a reader of the numbers needs to know."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """Build the reader of an argument that lists names.

    Args:
        allowed: The names that exist.

    Returns:
        A function from "a,b" to ["a", "b"].
    """

    def read(text: str) -> list[str]:
        found = text.split(",")
        unknown = [name for name in found if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        return found

    return read


def positive(text: str) -> int:
    """Read a whole number above 0.

    Args:
        text: The argument.

    Returns:
        Its value.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return int(text)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: Its words, None for those of the process.

    Returns:
        The settings.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")
    parser.add_argument("--tasks", type=lambda t: [positive(n) for n in t.split(",")], default=[2, 4, 8])
    parser.add_argument("--size", type=names(list(SIZES)), default=["large", "small"], help=", ".join(SIZES))
    parser.add_argument("--variants", type=names(VARIANTS), default=list(VARIANTS), help=", ".join(VARIANTS))
    parser.add_argument("--repeats", type=positive, default=15, help="timed rounds (default 15)")
    parser.add_argument("--warmup", type=positive, default=2, help="rounds before that (default 2)")
    parser.add_argument("--threads", type=positive, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: time of this process alone")
    settings = parser.parse_args(argv)
    if settings.clock == "cpu" and (settings.threads != 1 or settings.device != "cpu"):
        parser.error("--clock cpu counts waiting threads and no GPU: it needs --threads 1 --device cpu")
    if "plain" not in settings.variants:
        parser.error("--variants must include plain: every ratio is to it")
    return settings


def measure(work: Workload, variants: list[str], settings: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """Check, time and weigh all variants at one size and number of tasks.

    Args:
        work: Model and batch.
        variants: Which to measure.
        settings: Settings of the command line.
        bar: Progress bar, moved by one for every round.

    Returns:
        Check and measurements, ready for JSON.
    """
    device = work.input_ids.device
    checked = check(work, variants)
    steps = {variant: build_step(variant, work) for variant in variants}
    clock = CLOCKS[settings.clock]
    timings = interleaved(steps, settings.repeats, settings.warmup, synchronizer(device), bar.update, clock)
    del steps
    peaks = {v: peak_bytes(lambda v=v: build_step(v, work), device) for v in variants}  # type: ignore[misc]
    return {
        "check": checked,
        "variants": {
            variant: {
                "seconds": timings[variant].summary,
                "ratio_to_plain": timings[variant].ratio_to(timings["plain"]),
                "peak_bytes": peaks[variant],
                "memory_ratio_to_plain": peaks[variant] / peaks["plain"],
            }
            for variant in variants
        },
        "peer_ratios": {v: timings[v].ratio_to(timings["one_pass"]) for v in _peers(timings)},
    }


def _peers(timings: dict[str, Timings]) -> list[str]:
    """List the peer's variants where `one_pass` was measured beside them."""
    return [v for v in timings if v.startswith("torchjd")] if "one_pass" in timings else []


def targets(size: str, num_tasks: int, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare measured ratios with the project's targets.

    Args:
        size: Name of the size.
        num_tasks: Number of tasks.
        result: What `measure` returned.

    Returns:
        Every target that applies: name, measured ratio, limit, whether it is met.
    """
    found = []
    if num_tasks in TORCHJD_LIMIT and "one_pass" in result["variants"] and size in ONE_PASS_LIMIT:
        measured, limit = result["variants"]["one_pass"]["ratio_to_plain"].median, ONE_PASS_LIMIT[size]
        found.append({"name": "one_pass / plain", "measured": measured, "at_most": limit, "met": measured <= limit})
    for peer, ratio in result["peer_ratios"].items():
        if num_tasks in TORCHJD_LIMIT:
            measured, limit = ratio.median, TORCHJD_LIMIT[num_tasks]
            found.append({"name": f"{peer} / one_pass", "measured": measured, "at_least": limit})
            found[-1]["met"] = measured >= limit
    return found


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for.

    Args:
        settings: Settings of the command line.

    Returns:
        The whole result, ready for JSON.

    Raises:
        SystemExit: If the variants do not compute the same gradient: their times would mean nothing.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(auto if settings.device == "auto" else settings.device)
    left_out = {v: missing(v) for v in settings.variants if missing(v)}
    variants = [v for v in settings.variants if v not in left_out]
    result: dict[str, Any] = {
        "benchmark": "step_cost",
        "environment": environment(device),
        "settings": {**{name: getattr(settings, name) for name in RECORDED}, "lora_rank": LORA_RANK},
        "left_out": left_out,
        "results": [],
    }
    rounds = (settings.repeats + settings.warmup) * len(settings.size) * len(settings.tasks)
    with tqdm(total=rounds, unit="round", file=sys.stderr) as bar:
        for size in settings.size:
            model = build_model(SIZES[size], device)
            for num_tasks in settings.tasks:
                bar.set_description(f"{size}, {num_tasks} tasks")
                work = build_workload(model, SIZES[size], num_tasks)
                found = measure(work, variants, settings, bar)
                if not found["check"]["passed"]:
                    raise SystemExit(f"The variants do not compute the same gradient: {found['check']}")
                found = {**found, "targets": targets(size, num_tasks, found)}
                head = {"size": size, "tasks": num_tasks, "tokens": work.input_ids.numel()}
                result["results"].append({**head, "parameters": sum(p.numel() for p in work.parameters), **found})
    return result


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading.

    Args:
        result: What `run` returned.

    Returns:
        Lines of text.
    """
    about = result["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    lines = [f"{about['gpu'] or about['cpu']}, {about['cores']} cores, {about['threads']} threads; {versions}"]
    lines += [f"{variant} is left out: {why}" for variant, why in result["left_out"].items()]
    for found in result["results"]:
        lines += ["", f"{found['size']}: {found['tasks']} tasks, {found['tokens']} tokens a step"]
        lines += [f"  {'variant':<20}{'time':>12}{'x plain':>10}{'[quartiles]':>18}{'memory':>13}{'x plain':>10}"]
        for name, one in found["variants"].items():
            ratio = one["ratio_to_plain"]
            lines.append(
                f"  {name:<20}{one['seconds'].median * 1e3:>9.1f} ms{ratio.median:>10.3f}"
                f"{f'[{ratio.low:.3f}, {ratio.high:.3f}]':>18}{one['peak_bytes'] / 2**20:>9.1f} MiB"
                f"{one['memory_ratio_to_plain']:>10.3f}"
            )
        for target in found["targets"]:
            limit = f"<= {target['at_most']}" if "at_most" in target else f">= {target['at_least']}"
            met = "met" if target["met"] else "missed"
            lines.append(f"  target {target['name']} {limit}: {target['measured']:.3f}, {met}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark.

    Args:
        argv: Words of the command line, None for those of the process.
    """
    settings = arguments(argv)
    result = run(settings)
    if settings.json:
        write_json(result, sys.stdout)
    else:
        print(table(result))


if __name__ == "__main__":
    main()
