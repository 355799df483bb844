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

import torch
from torch import Tensor, nn
from tqdm import tqdm
from typing_extensions import override

from benchmarks.command import CLOCKS, RECORDED, build_parser, device_of, names, output, positive
from benchmarks.command import check as check_settings
from benchmarks.sizes import SIZES, Size
from benchmarks.step import Step, emptier
from benchmarks.timer import environment, interleaved, peak_bytes, synchronizer
from benchmarks.workload import Workload, build_model, build_workload
from mtl_opt import PCGrad, TaskGradients, Weighted
from mtl_opt.batch import task_rows
from mtl_opt.models import SHARING, LoraSettings, build_sharing, private_parameters, row_terms, share
from mtl_opt.models.sharing import AdapterSharing, LinearLayer, SharedLora, SharingContext

LIMIT = 1.10
"""Target: the largest ratio of a plain step to that of the same parameters unrouted."""

ACTIVE = {"mtl_lora": (1, 3), "hydra": (1, 3), "experts": (4, 4), "sparse_experts": (2, 2)}
"""Ranks of the first and of the second matrix that are active on a row, in units of the rank; others are counted."""


class Unrouted(AdapterSharing):
    """Plain LoRA whose two matrices may have different ranks; hidden features are repeated to fit.

    Args:
        ranks: Rank of the first and of the second matrix.
    """

    summary = "plain LoRA"

    def __init__(self, ranks: tuple[int, int]) -> None:
        self.ranks = ranks

    @override
    def adapter(self, layer: LinearLayer, context: SharingContext) -> nn.Module:
        return _Repeated(layer, context.lora, self.ranks)


class _Repeated(SharedLora):
    """`B repeat(A x)`; with equal ranks it is `SharedLora`."""

    def __init__(self, layer: LinearLayer, lora: LoraSettings, ranks: tuple[int, int]) -> None:
        super().__init__(layer, lora)
        self.times = ranks[1] // ranks[0]
        self.lora_A = nn.Linear(layer.in_features, ranks[0], bias=False, device=layer.device)
        self.lora_B = nn.Linear(ranks[1], layer.out_features, bias=False, device=layer.device)

    @override
    def forward(self, x: Tensor) -> Tensor:
        h = self.lora_A(self.dropout(x.to(self.lora_A.weight.dtype)))
        return self.lora_B(h if self.times == 1 else h.repeat(*[1] * (h.dim() - 1), self.times)) * self.scaling


def build(way: Any, size: Size, num_tasks: int, device: torch.device) -> Any:
    """Build a Llama with random weights and a way of sharing in it.

    Args:
        way: The way of sharing.
        size: Sizes of the model.
        num_tasks: Number of tasks.
        device: Where it lives.

    Returns:
        The model; no trained matrix is zero (a fresh adapter's `B` is, and with it half the gradient).
    """
    model = build_model(size, device, "full")
    model = model.to(torch.bfloat16) if size.autocast else model
    torch.manual_seed(0)
    lora = LoraSettings(rank=size.rank, alpha=16)
    share(model, way, [f"task {t}" for t in range(num_tasks)], lora)
    for parameter in model.parameters():
        if parameter.requires_grad and not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.02)
    return model.to(device).train()


def active(model: nn.Module, num_tasks: int) -> int:
    """Count the trained parameters that a row of a task meets, those of all tasks together divided by the tasks.

    Args:
        model: The model.
        num_tasks: Number of tasks.

    Returns:
        A number of parameters; for experts of which few are active it counts all.
    """
    own = sum(p.numel() for group in private_parameters(model).values() for p in group)
    return sum(p.numel() for p in model.parameters() if p.requires_grad) - own + own // num_tasks


def counterpart(name: str, model: nn.Module, plain: nn.Module, size: Size, num_tasks: int) -> tuple[int, int]:
    """Say which plain LoRA has as many active parameters.

    Args:
        name: Name of the way of sharing.
        model: The model with it.
        plain: The model with plain LoRA of the size's rank.
        size: Sizes of the model.
        num_tasks: Number of tasks.

    Returns:
        Ranks of the two matrices.
    """
    if name in ACTIVE:
        return ACTIVE[name][0] * size.rank, ACTIVE[name][1] * size.rank
    rank = max(1, round(size.rank * active(model, num_tasks) / active(plain, num_tasks)))
    return rank, rank


def build_step(model: nn.Module, work: Workload, engine: str, combine: str = "pcgrad") -> Step:
    """Build one step.

    Args:
        model: The model.
        work: The batch; its model is this one.
        engine: "plain" or "one_pass".
        combine: "pcgrad" is what is timed, "sum" has one right answer whatever the engine.

    Returns:
        The step.
    """

    def losses() -> Tensor:
        found = work.losses()
        terms = row_terms(model)
        return found if terms is None else found + terms

    if engine == "plain":

        def fill() -> None:
            with task_rows(work.task_ids):
                losses().sum().backward()

        return Step(fill, emptier(work.parameters))
    tasks = [f"task {t}" for t in range(work.num_tasks)]
    grads = TaskGradients(model, tasks, "one_pass", private=private_parameters(model))
    combiner = PCGrad() if combine == "pcgrad" else Weighted([1.0] * work.num_tasks)

    def fill_rows() -> None:
        with grads.rows(work.task_ids):
            grads.backward(losses(), work.counts)
        grads.combine(combiner)

    return Step(fill_rows, grads.zero)


def check(model: nn.Module, work: Workload) -> float:
    """Compare the gradient of one backward for all tasks with that of plain training, before anything is timed.

    Args:
        model: The model.
        work: The batch.

    Returns:
        Relative difference.

    Raises:
        SystemExit: If they differ: times would mean nothing.
    """
    found = []
    for engine in ("plain", "one_pass"):
        step = build_step(model, work, engine, "sum")
        step.fill()
        found.append(torch.cat([p.grad.flatten().float() for p in work.parameters if p.grad is not None]))
        step.zero()
    difference = float((found[1] - found[0]).norm() / found[0].norm())
    if difference > work.tolerance:
        raise SystemExit(f"{type(model.sharing).__name__}: the engines do not compute the same gradient: {difference}")
    return difference


def measure(head: dict[str, Any], settings: argparse.Namespace, bar: Any) -> dict[str, Any]:
    """Check, time and weigh all names at one size, with one kind of rows and of step.

    Args:
        head: Size, rows, step.
        settings: Settings of the command line.
        bar: Progress bar, moved by one for every round.

    Returns:
        Measurements, ready for JSON.
    """
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
    """Compare the ratios with the target, which is for plain steps with equal rows of a model of some size.

    Args:
        head: Size, rows, step.
        found: What `measure` returned.

    Returns:
        Name, measured ratio, limit, whether it is met.
    """
    if head["size"] == "tiny" or head["step"] != "plain" or head["rows"] != "equal":
        return []
    medians = {name: one["ratio_to_unrouted"].median for name, one in found["names"].items()}
    return [
        {"name": f"{name} / unrouted", "measured": at, "at_most": LIMIT, "met": at <= LIMIT}
        for name, at in medians.items()
    ]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: Its words, None for those of the process.

    Returns:
        The settings.
    """
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
    """Measure everything the command line asks for.

    Args:
        settings: Settings of the command line.

    Returns:
        The whole result, ready for JSON.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
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
    """Lay a result out for reading.

    Args:
        result: What `run` returned.

    Returns:
        Lines of text.
    """
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
        for target in found["targets"]:
            met = "met" if target["met"] else "missed"
            lines.append(f"  target {target['name']} <= {target['at_most']}: {target['measured']:.3f}, {met}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark.

    Args:
        argv: Words of the command line, None for those of the process.
    """
    settings = arguments(argv)
    output(run(settings), settings, table)


if __name__ == "__main__":
    main()
