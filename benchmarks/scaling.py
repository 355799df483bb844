"""How does the cost of a step grow with the number of tasks, of trained parameters, and with the length of rows?

    python -m benchmarks.scaling [--json] [--size large] [--axes tasks,parameters,length] [--tasks 2,4,8,16]
                                 [--rank 4,8,16,32,64] [--length 32,64,128,256] [--repeats 9] [--save]

One axis is changed, the others stay: 4 tasks, the size's own rank and length, equally many tokens of every task.
Cost is fitted by `cost ~ x ** exponent` (least squares in the logarithms).
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from benchmarks.command import CLOCKS, RECORDED, build_parser, device_of, main_of, names, positives
from benchmarks.command import check as check_settings
from benchmarks.sizes import SIZES
from benchmarks.timer import environment, interleaved, peak_bytes, synchronizer
from benchmarks.variants import build_step
from benchmarks.workload import Workload, build_model, build_workload

AXES = ("tasks", "parameters", "length")

VARIANTS = ("plain", "one_pass")

TASKS = 4
"""Tasks where another axis is changed."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = build_parser("scaling", __doc__)
    parser.add_argument("--size", choices=list(SIZES), default="large")
    parser.add_argument("--axes", type=names(AXES), default=list(AXES))
    parser.add_argument("--tasks", type=positives, default=[2, 4, 8, 16], help="numbers of tasks")
    parser.add_argument("--rank", type=positives, default=[4, 8, 16, 32, 64], help="ranks of the adapters")
    parser.add_argument("--length", type=positives, default=[32, 64, 128, 256], help="tokens of a row")
    settings = parser.parse_args(argv)
    for name in ("tasks", "rank", "length"):
        if len(set(getattr(settings, name))) < 2:
            parser.error(f"--{name} needs two different values: an exponent is the slope between them")
    if min(settings.length) < 2:
        parser.error("--length must be at least 2: the next token is learnt")
    check_settings(parser, settings)
    return settings


def exponent(points: Mapping[float, float]) -> float:
    """Fit `y = c * x ** exponent`.

    Examples:
        >>> round(exponent({1: 3.0, 2: 12.0, 4: 48.0}), 6)
        2.0
    """
    x, y = [math.log(at) for at in points], [math.log(value) for value in points.values()]
    mid_x, mid_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mid_x) * (b - mid_y) for a, b in zip(x, y, strict=True)) / sum((a - mid_x) ** 2 for a in x)


def workloads(axis: str, settings: argparse.Namespace) -> dict[int, Workload]:
    """Build the points of an axis."""
    size, device = SIZES[settings.size], device_of(settings)
    if axis == "tasks":
        model = build_model(size, device)
        return {n: build_workload(model, size, n) for n in sorted(set(settings.tasks))}
    if axis == "length":
        sizes = [replace(size, length=length) for length in sorted(set(settings.length))]
        model = build_model(sizes[-1], device)
        return {one.length: build_workload(model, one, TASKS) for one in sizes}
    models = [build_model(size, device, rank=rank) for rank in sorted(set(settings.rank))]
    found = [build_workload(model, size, TASKS) for model in models]
    return {sum(p.numel() for p in work.parameters): work for work in found}


def measure(axis: str, settings: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """Time and weigh all points of an axis, in turns."""
    works, device = workloads(axis, settings), device_of(settings)
    steps = {f"{variant} {x}": build_step(variant, work) for x, work in works.items() for variant in VARIANTS}
    buffers = {x: steps[f"one_pass {x}"].buffer_bytes for x in works}
    clock, wait = CLOCKS[settings.clock], synchronizer(device)
    timings = interleaved(steps, settings.repeats, settings.warmup, wait, bar.update, clock)
    del steps
    points = []
    for x, work in works.items():
        own = {variant: timings[f"{variant} {x}"] for variant in VARIANTS}
        points.append({
            "x": x,
            "seconds": {variant: times.summary for variant, times in own.items()},
            "ratio_to_plain": own["one_pass"].ratio_to(own["plain"]),
            "peak_bytes": {v: peak_bytes(lambda v=v, w=work: build_step(v, w), device) for v in VARIANTS},  # type: ignore[misc]
            "buffer_bytes": buffers[x],
        })  # fmt: skip
    return {"axis": axis, "points": points, "exponents": exponents(points)}


def exponents(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Fit the growth of time and memory of every variant."""
    return {
        "time": {v: exponent({p["x"]: p["seconds"][v].median for p in points}) for v in VARIANTS},
        "memory": {
            **{v: exponent({p["x"]: p["peak_bytes"][v] for p in points}) for v in VARIANTS},
            "buffer": exponent({p["x"]: p["buffer_bytes"] for p in points}),
        },
    }


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    found = []
    with tqdm(total=(settings.repeats + settings.warmup) * len(settings.axes), unit="round", file=sys.stderr) as bar:
        for axis in settings.axes:
            bar.set_description(axis)
            found.append(measure(axis, settings, bar))
    return {
        "benchmark": "scaling",
        "environment": environment(device_of(settings)),
        "settings": {name: getattr(settings, name) for name in (*RECORDED, "size")},
        "results": found,
    }


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    about = result["environment"]
    lines = [f"{about['gpu'] or about['cpu']}, {about['cores']} cores, {about['threads']} threads"]
    for found in result["results"]:
        lines += ["", f"  {found['axis']:>12}{'plain':>12}{'one_pass':>12}{'x plain':>9}{'plain':>13}{'one_pass':>13}"]
        for point in found["points"]:
            seconds, peak = point["seconds"], point["peak_bytes"]
            lines.append(
                f"  {point['x']:>12}{seconds['plain'].median * 1e3:>9.1f} ms{seconds['one_pass'].median * 1e3:>9.1f} ms"
                f"{point['ratio_to_plain'].median:>9.3f}{peak['plain'] / 2**20:>9.1f} MiB"
                f"{peak['one_pass'] / 2**20:>9.1f} MiB"
            )
        time, memory = found["exponents"]["time"], found["exponents"]["memory"]
        lines.append(
            f"  {'exponent':>12}{time['plain']:>12.2f}{time['one_pass']:>12.2f}{'':>9}"
            f"{memory['plain']:>13.2f}{memory['one_pass']:>13.2f}"
        )
    return "\n".join(lines)


main = main_of(arguments, run, table)


if __name__ == "__main__":
    main()
