"""What does a step with a gradient per task cost when short rows are packed, against plain training with padding?

    python -m benchmarks.packing [--json] [--spread 1,2,4,8] [--size large,small] [--tasks 4] [--repeats 15]

Every second task's rows are `spread` times as short as the others'. A step is forward, backward and combination.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.command import (
    CLOCKS,
    RECORDED,
    build_parser,
    device_of,
    main_of,
    names,
    positive,
    positives,
    target_lines,
)
from benchmarks.command import check as check_settings
from benchmarks.sizes import SIZES, Size
from benchmarks.step import Step, emptier
from benchmarks.timer import environment, interleaved, peak_bytes, synchronizer
from benchmarks.workload import build_model
from mtl_opt import PCGrad, TaskGradients, Weighted
from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.data import EncodedRow, collate, collate_packed
from mtl_opt.models import task_losses

LIMIT = {"packed_one_pass": 0.8}
"""Target: the largest ratio to `padded_plain` where lengths differ by `FROM_SPREAD` or more."""

FROM_SPREAD = 4

TOLERANCE = 1e-5
"""Largest relative difference between the gradients of two variants: rounding in float32."""

VARIANTS = ("padded_plain", "padded_one_pass", "packed_plain", "packed_one_pass")


def ragged_rows(size: Size, num_tasks: int, spread: int) -> list[list[EncodedRow]]:
    """Draw random rows, equally many of every task, those of every second task `spread` times as short."""
    generator = torch.Generator().manual_seed(0)

    def row(length: int) -> EncodedRow:
        ids = torch.randint(size.vocabulary, (length,), generator=generator).tolist()
        return EncodedRow(ids, [IGNORE_INDEX] * (length // 3) + ids[length // 3 :], shortened=False)

    lengths = [max(2, size.length // (spread if task % 2 else 1)) for task in range(num_tasks)]
    return [[row(length) for _ in range(size.rows // num_tasks)] for length in lengths]


def build_step(variant: str, model: nn.Module, batch: TaskBatch, num_tasks: int, combine: str = "pcgrad") -> Step:
    """Build one variant."""
    if variant.endswith("plain"):

        def fill() -> None:
            task_losses(model, batch, num_tasks)[0].sum().backward()

        return Step(fill, emptier([p for p in model.parameters() if p.requires_grad]))
    grads = TaskGradients(model, [f"task {t}" for t in range(num_tasks)], "one_pass")
    combiner = PCGrad() if combine == "pcgrad" else Weighted([1.0] * num_tasks)

    def fill_rows() -> None:
        with grads.rows(batch.task_ids):
            grads.backward(*task_losses(model, batch, num_tasks))
        grads.combine(combiner)

    return Step(fill_rows, grads.zero)


def difference(step: Step, model: nn.Module, wanted: Tensor | None) -> tuple[Tensor, float]:  # wanted [params]
    """Compare the gradient that a step leaves with the one that is wanted."""
    step.fill()
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    step.zero()
    return found, 0.0 if wanted is None else float((found - wanted).norm() / wanted.norm())


def measure(model: nn.Module, size: Size, spread: int, settings: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """Check, time and weigh all variants at one size and spread."""
    rows, device = ragged_rows(size, settings.tasks, spread), next(model.parameters()).device
    layouts = {"padded": collate(rows, 0).to(device), "packed": collate_packed(rows, 0, 4 * size.length).to(device)}
    batches = {variant: layouts[variant.split("_")[0]] for variant in VARIANTS}
    wanted, errors = None, {}
    for variant, batch in batches.items():
        found, errors[variant] = difference(build_step(variant, model, batch, settings.tasks, "sum"), model, wanted)
        wanted = found if wanted is None else wanted
    if max(errors.values()) > TOLERANCE:
        raise SystemExit(f"The variants do not compute the same gradient: {errors}")
    steps = {variant: build_step(variant, model, batch, settings.tasks) for variant, batch in batches.items()}
    clock = CLOCKS[settings.clock]
    timings = interleaved(steps, settings.repeats, settings.warmup, synchronizer(device), bar.update, clock)
    del steps
    peaks = {v: peak_bytes(lambda v=v: build_step(v, model, batches[v], settings.tasks), device) for v in VARIANTS}  # type: ignore[misc]
    ratios = {variant: timings[variant].ratio_to(timings["padded_plain"]) for variant in VARIANTS}
    judged = [(v, ratios[v].median, most) for v, most in LIMIT.items() if spread >= FROM_SPREAD]
    return {
        "spread": spread,
        "tokens": {name: batch.input_ids.numel() for name, batch in layouts.items()},
        "real_tokens": int(layouts["padded"].attention_mask.sum()),
        "differences": errors,
        "variants": {
            v: {
                "seconds": timings[v].summary,
                "ratio_to_padded_plain": ratios[v],
                "memory_ratio_to_padded_plain": peaks[v] / peaks["padded_plain"],
            }
            for v in VARIANTS
        },
        "targets": [
            {"name": f"{v} / padded_plain", "measured": median, "at_most": most, "met": median <= most}
            for v, median, most in judged
        ],
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = build_parser("packing", __doc__)
    parser.add_argument("--spread", type=positives, default=[1, 2, 4, 8])
    parser.add_argument("--size", type=names([n for n, size in SIZES.items() if not size.autocast]),
                        default=["large", "small"])  # fmt: skip
    parser.add_argument("--tasks", type=positive, default=4)
    settings = parser.parse_args(argv)
    check_settings(parser, settings)
    return settings


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    device = device_of(settings)
    kept = {name: getattr(settings, name) for name in (*RECORDED, "tasks")}
    result: dict[str, Any] = {"benchmark": "packing", "environment": environment(device), "settings": kept}
    rounds = (settings.repeats + settings.warmup) * len(settings.size) * len(settings.spread)
    found = []
    with tqdm(total=rounds, unit="round", file=sys.stderr) as bar:
        for name in settings.size:
            model = build_model(replace(SIZES[name], length=4 * SIZES[name].length), device)
            for spread in settings.spread:
                bar.set_description(f"{name}, lengths differ by {spread}")
                found.append({"size": name, **measure(model, SIZES[name], spread, settings, bar)})
    return {**result, "results": found}


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    lines = []
    for found in result["results"]:
        tokens = found["tokens"]
        lines.append(
            f"{found['size']}, lengths differ by {found['spread']}: {found['real_tokens']} tokens, "
            f"{tokens['padded']} padded, {tokens['packed']} packed"
        )
        for name, one in found["variants"].items():
            ratio = one["ratio_to_padded_plain"]
            lines.append(
                f"  {name:<18}{one['seconds'].median * 1e3:>9.1f} ms{ratio.median:>8.3f} "
                f"[{ratio.low:.3f}, {ratio.high:.3f}]   memory {one['memory_ratio_to_padded_plain']:.3f}"
            )
        lines += target_lines(found["targets"])
    return "\n".join(lines)


main = main_of(arguments, run, table)


if __name__ == "__main__":
    main()
