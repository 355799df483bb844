"""What does one training step cost with a gradient per task, against plain joint training and against others' ways?

    python -m benchmarks.step_cost [--json] [--tasks 2,4,8,16] [--size large,small] [--rows equal,ragged]
                                   [--train lora,full] [--repeats 15] [--threads 2] [--save]

A step is forward, backward and combination into `.grad`; the optimizer, the same for all, is left out.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from benchmarks.command import CLOCKS, RECORDED, build_parser, device_of, main_of, names, positives, target_lines
from benchmarks.command import check as check_settings
from benchmarks.peer_steps import PEERS
from benchmarks.sizes import SIZES
from benchmarks.targets import OPTION_LIMIT, targets
from benchmarks.timer import environment, interleaved, peak_bytes, synchronizer
from benchmarks.variants import FULL_VARIANTS, VARIANTS, build_step, check, missing, unsuitable
from benchmarks.workload import Workload, build_model, build_workload


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = build_parser("step_cost", __doc__)
    parser.add_argument("--tasks", type=positives, default=[2, 4, 8, 16], help="numbers of tasks")
    parser.add_argument("--size", type=names(list(SIZES)), default=["large", "small"], help=", ".join(SIZES))
    parser.add_argument("--rows", type=names(["equal", "ragged"]), default=["equal", "ragged"])
    parser.add_argument("--train", type=names(["lora", "full"]), default=["lora", "full"], help="what is trained")
    parser.add_argument("--variants", type=names(VARIANTS), help=f"{', '.join(VARIANTS)}; default: all for lora, "
                        f"{', '.join(FULL_VARIANTS)} for full")  # fmt: skip
    settings = parser.parse_args(argv)
    if settings.variants and "plain" not in settings.variants:
        parser.error("--variants must include plain: every ratio is to it")
    check_settings(parser, settings)
    return settings


def measure(work: Workload, variants: list[str], settings: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """Check, time and weigh all variants at one size and number of tasks."""
    checked = check(work, variants)
    if not checked["passed"]:
        raise SystemExit(f"The variants do not compute the same gradient: {checked}")
    steps = {variant: build_step(variant, work) for variant in variants}
    buffers = {variant: step.buffer_bytes for variant, step in steps.items()}
    clock, wait = CLOCKS[settings.clock], synchronizer(work.device)
    timings = interleaved(steps, settings.repeats, settings.warmup, wait, bar.update, clock)
    del steps
    peaks = {v: peak_bytes(lambda v=v: build_step(v, work), work.device) for v in variants}  # type: ignore[misc]
    to_one_pass = {v: t.ratio_to(timings["one_pass"]) for v, t in timings.items() if "one_pass" in timings}
    return {
        "check": checked,
        "variants": {
            variant: {
                "seconds": timings[variant].summary,
                "ratio_to_plain": timings[variant].ratio_to(timings["plain"]),
                "peak_bytes": peaks[variant],
                "memory_ratio_to_plain": peaks[variant] / peaks["plain"],
                "bytes_over_plain": peaks[variant] - peaks["plain"],
                "buffer_bytes": buffers[variant],
                "layer_bytes": work.num_tasks * max(p.numel() for p in work.parameters) * 4,
            }
            for variant in variants
        },
        "peer_ratios": {v: ratio for v, ratio in to_one_pass.items() if v in PEERS},
        "option_ratios": {v: ratio for v, ratio in to_one_pass.items() if v in OPTION_LIMIT},
    }


def workloads(settings: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Workload]]:
    """Build everything the command line asks for, one after the other."""
    for train in settings.train:
        for size in settings.size:
            model = build_model(SIZES[size], device_of(settings), train)
            for rows in settings.rows:
                for num_tasks in settings.tasks:
                    work = build_workload(model, SIZES[size], num_tasks, rows)
                    head = {"size": size, "train": train, "rows": rows, "tasks": num_tasks}
                    tokens = {"tokens": work.input_ids.numel(), "label_tokens": int(work.counts.sum())}
                    yield {**head, **tokens, "parameters": sum(p.numel() for p in work.parameters)}, work


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    device = device_of(settings)
    wanted = {"lora": settings.variants or VARIANTS, "full": settings.variants or FULL_VARIANTS}
    left_out = {v: missing(v) for train in settings.train for v in wanted[train] if missing(v)}
    results = []
    numbers = [len(getattr(settings, name)) for name in ("train", "size", "rows", "tasks")]
    rounds = (settings.repeats + settings.warmup) * numbers[0] * numbers[1] * numbers[2] * numbers[3]
    with tqdm(total=rounds, unit="round", file=sys.stderr) as bar:
        for head, work in workloads(settings):
            bar.set_description("{size}, {train}, {rows} rows, {tasks} tasks".format(**head))
            cannot = {v: unsuitable(v, work) for v in wanted[head["train"]] if v not in left_out}
            found = measure(work, [v for v, reason in cannot.items() if not reason], settings, bar)
            found["left_out"] = {v: reason for v, reason in cannot.items() if reason}
            results.append({**head, **found, "targets": targets(head, found, device.type == "cuda")})
    return {
        "benchmark": "step_cost",
        "environment": environment(device),
        "settings": {name: getattr(settings, name) for name in RECORDED},
        "left_out": left_out,
        "results": results,
    }


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    about = result["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    lines = [f"{about['gpu'] or about['cpu']}, {about['cores']} cores, {about['threads']} threads; {versions}"]
    lines += [f"{variant} is left out: {why}" for variant, why in result["left_out"].items()]
    for found in result["results"]:
        lines += ["", "{size}, {train}, {rows} rows: {tasks} tasks, {tokens} tokens a step".format(**found)]
        lines += [f"  {'variant':<20}{'time':>12}{'x plain':>10}{'[quartiles]':>18}{'memory':>13}{'x plain':>10}"]
        lines[-1] += f"{'over plain':>15}{'buffer':>13}"
        for name, one in found["variants"].items():
            ratio = one["ratio_to_plain"]
            lines.append(
                f"  {name:<20}{one['seconds'].median * 1e3:>9.1f} ms{ratio.median:>10.3f}"
                f"{f'[{ratio.low:.3f}, {ratio.high:.3f}]':>18}{one['peak_bytes'] / 2**20:>9.1f} MiB"
                f"{one['memory_ratio_to_plain']:>10.3f}{one['bytes_over_plain'] / 2**20:>11.1f} MiB"
                f"{one['buffer_bytes'] / 2**20:>9.1f} MiB"
            )
        lines += [f"  {variant} is left out: {why}" for variant, why in found["left_out"].items()]
        lines += target_lines(found["targets"])
    return "\n".join(lines)


main = main_of(arguments, run, table)


if __name__ == "__main__":
    main()
