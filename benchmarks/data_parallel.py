"""One process of `benchmarks.distributed`: times data-parallel steps and counts what they send.

`torchrun` starts it; it is of no use by itself. Rank 0 writes what all ranks measured as JSON.
"""

import argparse
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from benchmarks.command import CLOCKS
from benchmarks.sizes import SIZES
from benchmarks.step import Method, Step, emptier
from benchmarks.timer import interleaved
from benchmarks.workload import Workload, build_model, build_workload
from mtl_opt import PCGrad, TaskGradients, Weighted

PATIENCE = timedelta(minutes=5)
"""How long a process waits for another before it ends with an error."""


def plain(work: Workload) -> Step:
    """Build data-parallel joint training: the sum of the losses through `DistributedDataParallel`."""
    wrapped = DistributedDataParallel(work.model)
    own = Workload(**{**vars(work), "model": wrapped})
    return Step(lambda: own.losses().sum().backward(), emptier(work.parameters))


def one_pass(work: Workload, grads: TaskGradients, method: Method) -> Step:
    """Build the step with a gradient per task, which sums over processes by itself."""
    combiner = PCGrad() if method == "pcgrad" else Weighted([1.0] * work.num_tasks)

    def fill() -> None:
        with grads.rows(work.task_ids):
            grads.backward(work.losses(), work.counts)
        grads.combine(combiner)

    return Step(fill, grads.zero)


def gradient(step: Step, work: Workload) -> Tensor:  # [params]
    """Read the gradient that a step leaves."""
    step.fill()
    found = torch.cat([p.grad.flatten() for p in work.parameters if p.grad is not None])
    step.zero()
    return found


def measure(settings: argparse.Namespace) -> dict[str, Any]:
    """Check and time both variants in this process."""
    size = SIZES[settings.size]
    works = [
        # A model each: a reducer hooks parameters. Every process has rows of its own, equally many.
        build_workload(build_model(size, torch.device("cpu")), size, settings.tasks, seed=dist.get_rank())
        for _ in range(2)
    ]
    grads = TaskGradients(works[1].model, [f"task {t}" for t in range(settings.tasks)], "one_pass")
    steps = {"plain": plain(works[0]), "one_pass": one_pass(works[1], grads, "pcgrad")}
    wanted = gradient(steps["plain"], works[0])
    found = gradient(one_pass(works[1], grads, "weighted"), works[1])
    before = grads.processes.sent
    steps["one_pass"]()
    sent = grads.processes.sent - before
    clock = CLOCKS[settings.clock]
    timings = interleaved(steps, settings.repeats, settings.warmup, dist.barrier, clock=clock)
    return {
        "seconds": {name: times.seconds for name, times in timings.items()},
        "difference": float((found - wanted).norm() / wanted.norm()),
        "tokens": works[0].input_ids.numel(),
        "parameters": sum(p.numel() for p in works[0].parameters),
        "sent": sent,
    }


def main() -> None:
    """Measure, collect what every process has seen, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--clock", required=True)
    for name in ("tasks", "repeats", "warmup"):
        parser.add_argument(f"--{name}", type=int, required=True)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=PATIENCE)
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, measure(settings))
    if dist.get_rank() == 0:
        settings.out.write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
