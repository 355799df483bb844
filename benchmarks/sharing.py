"""What does a way of sharing cost, against the same parameters unrouted: plain LoRA with as many active on a row?

    python -m benchmarks.sharing [--json] [--sharing NAMES] [--size large,small] [--tasks 4] [--rows equal,ragged]
                                 [--step plain,one_pass] [--repeats 15] [--threads 2] [--save]

A step is forward and backward of the sum of the losses (`plain`), or forward, one backward for all tasks and PCGrad
(`one_pass`). Every name of the registry `SHARING` is measured with its default arguments.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from benchmarks.command import CLOCKS, RECORDED, build_parser, device_of, main_of, names, positive, target_lines
from benchmarks.command import check as check_settings
from benchmarks.sharing_steps import Unrouted, active, build, build_step, check, counterpart
from benchmarks.sizes import SIZES
from benchmarks.timer import environment, interleaved, peak_bytes, synchronizer
from benchmarks.workload import build_workload
from mtl_opt.models import SHARING, build_sharing

LIMIT = 1.10
"""Target: the largest ratio of a plain step to that of the same parameters unrouted."""


def measure(head: dict[str, Any], settings: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """Check, time and weigh all names at one size, with one kind of rows and of step."""
    size, device, tasks = SIZES[head["size"]], device_of(settings), settings.tasks
    models = {name: build(build_sharing(name, {}), size, tasks, device) for name in settings.sharing}
    models["plain"] = build(Unrouted((size.rank, size.rank)), size, tasks, device)
    ranks = {name: counterpart(name, models[name], models["plain"], size, tasks) for name in settings.sharing}
    for pair in dict.fromkeys(ranks.values()):
        models[_name(pair)] = build(Unrouted(pair), size, tasks, device)
    del models["plain"]
    works = {name: build_workload(model, size, tasks, head["rows"]) for name, model in models.items()}
    differences = {name: check(models[name], works[name]) for name in models}
    steps = {name: build_step(models[name], works[name], head["step"]) for name in models}
    clock = CLOCKS[settings.clock]
    timings = interleaved(steps, settings.repeats, settings.warmup, synchronizer(device), bar.update, clock)
    del steps
    peaks = {n: peak_bytes(lambda n=n: build_step(models[n], works[n], head["step"]), device) for n in models}  # type: ignore[misc]
    return {
        "tokens": next(iter(works.values())).input_ids.numel(),
        "names": {
            name: {
                "seconds": timings[name].summary,
                "unrouted": _name(pair),
                "ratio_to_unrouted": timings[name].ratio_to(timings[_name(pair)]),
                "memory_ratio_to_unrouted": peaks[name] / peaks[_name(pair)],
                "active_parameters": active(models[name], tasks),
                "unrouted_parameters": active(models[_name(pair)], tasks),
                "difference": differences[name],
            }
            for name, pair in ranks.items()
        },
        "unrouted": {_name(pair): {"seconds": timings[_name(pair)].summary} for pair in dict.fromkeys(ranks.values())},
    }


def _name(ranks: tuple[int, int]) -> str:
    """Name plain LoRA by its ranks."""
    return f"lora {ranks[0]}" if ranks[0] == ranks[1] else f"lora {ranks[0]} to {ranks[1]}"


def judged(head: dict[str, Any], found: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the ratios with the target, which is for plain steps with equal rows of a model of some size."""
    if head["size"] == "tiny" or head["step"] != "plain" or head["rows"] != "equal":
        return []
    medians = {name: one["ratio_to_unrouted"].median for name, one in found["names"].items()}
    return [
        {"name": f"{name} / unrouted", "measured": at, "at_most": LIMIT, "met": at <= LIMIT}
        for name, at in medians.items()
    ]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = build_parser("sharing", __doc__)
    parser.add_argument("--sharing", type=names(list(SHARING)), default=list(SHARING), help="default: all")
    parser.add_argument("--size", type=names(list(SIZES)), default=["large", "small"], help=", ".join(SIZES))
    parser.add_argument("--rows", type=names(["equal", "ragged"]), default=["equal"])
    parser.add_argument("--step", type=names(["plain", "one_pass"]), default=["plain", "one_pass"])
    parser.add_argument("--tasks", type=positive, default=4)
    settings = parser.parse_args(argv)
    check_settings(parser, settings)
    return settings


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    device = device_of(settings)
    kept = {name: getattr(settings, name) for name in (*RECORDED, "tasks")}
    heads = [
        {"size": size, "rows": rows, "step": step}
        for size in settings.size
        for rows in settings.rows
        for step in settings.step
    ]
    found = []
    with tqdm(total=(settings.repeats + settings.warmup) * len(heads), unit="round", file=sys.stderr) as bar:
        for head in heads:
            bar.set_description("{size}, {rows} rows, {step}".format(**head))
            one = measure(head, settings, bar)
            found.append({**head, **one, "targets": judged(head, one)})
    return {"benchmark": "sharing", "environment": environment(device), "settings": kept, "results": found}


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    lines = []
    for found in result["results"]:
        lines.append("{size}, {rows} rows, {step}: {tokens} tokens a step".format(**found))
        for name, one in found["names"].items():
            ratio = one["ratio_to_unrouted"]
            lines.append(
                f"  {name:<18}{one['seconds'].median * 1e3:>9.1f} ms{ratio.median:>8.3f} "
                f"[{ratio.low:.3f}, {ratio.high:.3f}] x {one['unrouted']:<14} "
                f"memory {one['memory_ratio_to_unrouted']:.3f}"
            )
        lines += target_lines(found["targets"])
    return "\n".join(lines)


main = main_of(arguments, run, table)


if __name__ == "__main__":
    main()
