"""What do shadow combiners and all diagnostics cost beside a plain training step?

    python -m benchmarks.monitor [--json] [--tasks 2,4,8,16] [--size large] [--logging-steps 10] [--repeats 15]

Timed is the monitoring itself over one log line, on the rows of a real step, divided by its number of steps. The
difference of two whole steps would drown such small parts in the noise of the machine.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
from benchmarks.sizes import SIZES
from benchmarks.targets import LONG_STEP
from benchmarks.timer import Timings, environment, interleaved, synchronizer
from benchmarks.variants import build_step
from benchmarks.workload import Workload, build_model, build_workload
from mtl_opt import COMBINERS, PCGrad, TaskGradients
from mtl_opt.monitor import ConflictLog, StepEvent, TensorBoardWriter, diagnose
from mtl_opt.monitor.conflict_line import all_cosines
from mtl_opt.training.run.shadows import Shadows
from mtl_opt.training.run.step_monitor import StepMonitor
from mtl_opt.training.setup.shadow_combiners import CHEAP

LIMITS = {"shadows": 0.02, "all": 0.03}
"""Targets: the largest share of a plain step of at least `LONG_STEP`, averaged over a log line. The hardest case is a
step that takes just so long, so the time itself is judged against one too."""

LEAST_TOKENS = 512
"""Tokens of a step from which it can be taken for a real one; below are the sizes of tests."""

VARIANTS = ("window", "shadows", "all")

WINDOW = 100
"""Steps of the running statistics, as `mtl-opt train` keeps them by default."""


class Monitored:
    """Measure one real step over and over, as training measures a run.

    Args:
        work: Model and batch.
        logging_steps: Steps of a log line.
        folder: Where `conflict.jsonl` and event files go.
    """

    def __init__(self, work: Workload, logging_steps: int, folder: Path) -> None:
        self.tasks = [f"task {t}" for t in range(work.num_tasks)]
        self.logging_steps = logging_steps
        self.grads = TaskGradients(work.model, self.tasks, "one_pass", window=WINDOW)
        with self.grads.rows(work.task_ids):
            self.grads.backward(work.losses(), work.counts)
        self.grads.losses().abs_()  # every second task unlearns; most methods know no negative losses
        self.weights = self.grads.combine(PCGrad())
        self.log = ConflictLog(folder / "conflict.jsonl")
        self.board = TensorBoardWriter(folder / "runs", self.tasks)

    def monitor(self, layers: bool) -> StepMonitor:
        """Build what measures, with every shadow that a run has by default."""
        cheap = {n: cls() for n, cls in COMBINERS.items() if cls.requires in CHEAP and cls.observes == "nothing"}
        for combiner in cheap.values():
            combiner.bind(self.tasks)
        return StepMonitor(Shadows(cheap, len(self.tasks), used="pcgrad"), layers, self.logging_steps, sys.maxsize)

    def event(self, step: int) -> StepEvent:
        """Describe the step as training does, which is not timed as monitoring."""
        weights, counts = self.weights, self.grads.counts.cpu()
        own = None if weights is None else weights.cpu()
        return StepEvent(step, self.grads.losses().cpu(), counts, self.grads.gramian().cpu(), own, 1e-3, 1.0)

    def window(self) -> Callable[[], None]:
        """Add the rows of a log line's steps to the running statistics."""
        grads, window = self.grads, self.grads.window
        assert window is not None

        def add() -> None:
            for _ in range(self.logging_steps):
                if window.add(grads.jacobian, grads.gramian().diagonal(), grads.present):
                    window.finish_block(grads.buffer.product(window.sums))

        return add

    def shadows(self) -> Callable[[], None]:
        """Ask the shadows, and measure their angles and predicted changes."""
        monitor, events = self.monitor(layers=False), [self.event(step + 1) for step in range(self.logging_steps)]

        def ask() -> None:
            for event in events:
                monitor.before_combining(self.grads, event.step)
                found = monitor.after_combining(self.grads, event)
            diagnose([found], self.tasks)

        return ask

    def all(self) -> Callable[[], None]:
        """Do everything: window, shadows, layers, diagnosis, `conflict.jsonl` and TensorBoard (without pictures)."""
        monitor, add = self.monitor(layers=True), self.window()
        events = [self.event(step + 1) for step in range(self.logging_steps)]

        def measure() -> None:
            found = []
            for event in events:
                monitor.before_combining(self.grads, event.step)
                found.append(monitor.after_combining(self.grads, event))
            add()
            line = diagnose(found, self.tasks)
            assert line is not None
            self.log.write(line)
            self.board.write_diagnosis(line, all_cosines(found), draw=False)

        return measure


def measure(work: Workload, settings: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """Time all parts at one size and number of tasks."""
    with tempfile.TemporaryDirectory() as folder:
        monitored = Monitored(work, settings.logging_steps, Path(folder))
        parts = {name: getattr(monitored, name)() for name in VARIANTS}
        steps = {"plain": build_step("plain", work), **parts}
        clock, wait = CLOCKS[settings.clock], synchronizer(work.device)
        timings = interleaved(steps, settings.repeats, settings.warmup, wait, bar.update, clock)
        failed = [line for line in (Path(folder) / "conflict.jsonl").read_text("utf-8").splitlines() if "Error" in line]
        monitored.board.close()
    if failed:
        raise SystemExit(f"A shadow failed: {failed[0]}")
    per_step = {name: Timings(tuple(s / settings.logging_steps for s in timings[name].seconds)) for name in VARIANTS}
    ratios = {name: timing.ratio_to(timings["plain"]) for name, timing in per_step.items()}
    plain = timings["plain"].summary
    judged = [(f"{n} / plain", ratios[n].median, most) for n, most in LIMITS.items() if plain.median >= LONG_STEP]
    limits = LIMITS if work.input_ids.numel() >= LEAST_TOKENS else {}
    judged += [(f"{n} / {LONG_STEP} s", per_step[n].summary.median / LONG_STEP, most) for n, most in limits.items()]
    return {
        "plain_seconds": plain,
        "variants": {n: {"seconds_per_step": per_step[n].summary, "share_of_plain": ratios[n]} for n in VARIANTS},
        "targets": [
            {"name": name, "measured": measured, "at_most": most, "met": measured <= most}
            for name, measured, most in judged
        ],
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = build_parser("monitor", __doc__)
    parser.add_argument("--tasks", type=positives, default=[2, 4, 8, 16], help="numbers of tasks")
    parser.add_argument("--size", type=names(list(SIZES)), default=["large"], help=", ".join(SIZES))
    parser.add_argument("--logging-steps", type=positive, default=10, help="steps of a log line")
    settings = parser.parse_args(argv)
    check_settings(parser, settings)
    return settings


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    device = device_of(settings)
    kept = {name: getattr(settings, name) for name in (*RECORDED, "logging_steps")}
    result: dict[str, Any] = {"benchmark": "monitor", "environment": environment(device), "settings": kept}
    rounds = (settings.repeats + settings.warmup) * len(settings.size) * len(settings.tasks)
    found = []
    with tqdm(total=rounds, unit="round", file=sys.stderr) as bar:
        for name in settings.size:
            model = build_model(SIZES[name], device)
            for tasks in settings.tasks:
                bar.set_description(f"{name}, {tasks} tasks")
                work = build_workload(model, SIZES[name], tasks)
                found.append({"size": name, "tasks": tasks, **measure(work, settings, bar)})
    return {**result, "results": found}


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    lines = []
    for found in result["results"]:
        lines.append(
            f"{found['size']}, {found['tasks']} tasks: plain step {found['plain_seconds'].median * 1e3:.1f} ms"
        )
        for name, one in found["variants"].items():
            share = one["share_of_plain"]
            lines.append(
                f"  {name:<10}{one['seconds_per_step'].median * 1e3:>8.2f} ms a step{100 * share.median:>8.2f} % "
                f"[{100 * share.low:.2f}, {100 * share.high:.2f}]"
            )
        lines += target_lines(found["targets"], 4)
    return "\n".join(lines)


main = main_of(arguments, run, table)


if __name__ == "__main__":
    main()
