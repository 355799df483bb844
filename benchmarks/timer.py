"""The timer of every benchmark: variants in turns, medians with quartiles, peak memory, hardware and versions."""

import gc
import importlib.metadata
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Summary:
    """Describe repeated measurements by their quartiles, which one slow round cannot move.

    Attributes:
        low: First quartile.
        median: Median.
        high: Third quartile.
    """

    low: float
    median: float
    high: float


def summary(values: Sequence[float]) -> Summary:
    """Take the quartiles of some measurements.

    Examples:
        >>> summary([4.0, 1.0, 3.0, 2.0, 5.0])
        Summary(low=2.0, median=3.0, high=4.0)
    """
    if len(values) == 1:
        return Summary(values[0], values[0], values[0])
    return Summary(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Timings:
    """Hold what one variant took in every round.

    Attributes:
        seconds: Time of each round, in seconds.
    """

    seconds: tuple[float, ...]

    @property
    def summary(self) -> Summary:
        """Quartiles of the time, in seconds."""
        return summary(self.seconds)

    def ratio_to(self, other: "Timings") -> Summary:
        """Divide round by round: what slows the whole machine for a while slows both and cancels."""
        return summary([mine / its for mine, its in zip(self.seconds, other.seconds, strict=True)])


def interleaved(
    variants: Mapping[str, Callable[[], None]],
    rounds: int,
    warmup: int,
    synchronize: Callable[[], None],
    advance: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timings]:
    """Time all variants in turns, so that noise of the machine hits all alike.

    The order is drawn anew in every round (always the same draws): in a fixed order each variant would meet the
    caches and the allocator as the same predecessor left them.
    """
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(warmup + rounds):
        order.shuffle(names)
        with _no_collection():
            for name in names:
                synchronize()
                begin = clock()
                variants[name]()
                synchronize()
                if turn >= warmup:
                    seconds[name].append(clock() - begin)
        advance()
    return {name: Timings(tuple(found)) for name, found in seconds.items()}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect garbage now and not inside: a collection would count for whoever is being timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Choose how to wait for a device."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else lambda: None


def peak_bytes(build: Callable[[], Callable[[], None]], device: torch.device) -> int:
    """Measure the most memory that torch holds at once for a variant, above what it held before.

    What the variant keeps between steps (its row buffer) counts too: it is built here, and takes two steps so that
    the second one meets what the first one left. Never measure time in the same run: on the CPU torch's profiler
    records every allocation.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _two_steps(build)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        _two_steps(build)
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative when memory is given back
        peak = max(peak, held)
    return peak


def _two_steps(build: Callable[[], Callable[[], None]]) -> None:
    """Build a variant and run it twice."""
    step = build()
    step()
    step()


def environment(device: torch.device) -> dict[str, Any]:
    """Describe where numbers were measured; a number without this cannot be compared."""
    packages = ("torch", "transformers", "peft", "torchjd", "pytorch-optimizer")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def version(package: str) -> str | None:
    """Tell the installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """Name the processor; Linux tells its model only in /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def write_json(result: Mapping[str, Any], stream: TextIO) -> None:
    """Write a result as JSON."""
    json.dump(result, stream, indent=2, ensure_ascii=False, default=asdict)
    stream.write("\n")
