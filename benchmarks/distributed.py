"""What does a data-parallel step with a gradient per task cost, and what does it send over the wire?

    python -m benchmarks.distributed [--json] [--processes 1,2] [--size large] [--tasks 4] [--repeats 15] [--save]

Real processes under `torchrun`, gloo over loopback, one thread each. Every process has the rows of the size, so that
two processes do twice the work of one. `plain` is DistributedDataParallel and the sum of the losses.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.command import CLOCKS, RECORDED, add_outputs, main_of, positive, positives
from benchmarks.sizes import SIZES
from benchmarks.timer import Timings, environment

ROOT = Path(__file__).parents[1]

LIMIT = 1.10
"""Target: the largest `one_pass / plain` with two processes or more."""

TOLERANCE = 1e-5
"""Largest relative difference between the gradients of the variants: rounding in float32."""

SECONDS = 3600
"""How long one launch may take."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--processes", type=positives, default=[1, 2], help="numbers of processes (default 1,2)")
    parser.add_argument("--size", choices=[n for n, size in SIZES.items() if not size.autocast], default="large")
    parser.add_argument("--tasks", type=positive, default=4)
    parser.add_argument("--repeats", type=positive, default=15, help="timed rounds (default 15)")
    parser.add_argument("--warmup", type=positive, default=2, help="rounds before that (default 2)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: without waiting for the others")
    add_outputs(parser, "distributed")
    settings = parser.parse_args(argv)
    if SIZES[settings.size].rows % settings.tasks:
        parser.error(f"--tasks must divide the {SIZES[settings.size].rows} rows of a process, got {settings.tasks}")
    return settings


def launch(processes: int, settings: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the processes to their end."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in paths if p), "GLOO_SOCKET_IFNAME": "lo"}
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "benchmarks.data_parallel"]
    words += ["--size", settings.size, "--tasks", str(settings.tasks), "--clock", settings.clock]
    words += ["--repeats", str(settings.repeats), "--warmup", str(settings.warmup)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seen.json"
        with subprocess.Popen(
            [*words, "--out", str(path)],
            env={**os.environ, **own},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as torchrun:
            try:
                _, errors = torchrun.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                torchrun.terminate()  # it ends its processes, which a kill would leave behind
                raise SystemExit(f"{processes} processes were not done after {SECONDS} seconds.") from None
        if torchrun.returncode:
            raise SystemExit(f"{processes} processes ended with {torchrun.returncode}:\n{errors[-4000:]}")
        return json.loads(path.read_text(encoding="utf-8"))


def summarised(seen: Sequence[Mapping[str, Any]], num_tasks: int) -> dict[str, Any]:
    """Put together what the processes have seen: a round takes as long as its slowest process."""
    differences = [one["difference"] for one in seen]
    if not all(difference <= TOLERANCE for difference in differences):  # nor where one is no number
        raise SystemExit(f"The variants do not compute the same gradient: they differ by {differences}.")
    rounds = {v: zip(*(one["seconds"][v] for one in seen), strict=True) for v in ("plain", "one_pass")}
    times = {v: Timings(tuple(max(one) for one in found)) for v, found in rounds.items()}
    ratio = times["one_pass"].ratio_to(times["plain"])
    floor = num_tasks * seen[0]["parameters"] * 4  # one buffer `[tasks, params]` in float32
    sent = max(one["sent"] for one in seen)
    judged = [("one_pass / plain", ratio.median, LIMIT)] if len(seen) > 1 else []
    return {
        "processes": len(seen),
        "tokens_per_process": seen[0]["tokens"],
        "parameters": seen[0]["parameters"],
        "difference": max(differences),
        "seconds": {variant: one.summary for variant, one in times.items()},
        "ratio_to_plain": ratio,
        "wire_bytes": {"one_pass": sent, "floor": floor, "ratio": sent / floor},
        "targets": [{"name": n, "measured": at, "at_most": most, "met": at <= most} for n, at, most in judged],
    }


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Measure everything the command line asks for."""
    found = [
        summarised(launch(processes, settings), settings.tasks)
        for processes in tqdm(settings.processes, unit="launch", file=sys.stderr)
    ]
    about = {**environment(torch.device("cpu")), "threads": 1, "backend": "gloo over loopback"}
    kept = {name: getattr(settings, name) for name in (*RECORDED, "size", "tasks")}
    return {"benchmark": "distributed", "environment": about, "settings": kept, "results": found}


def table(result: dict[str, Any]) -> str:
    """Lay a result out for reading."""
    about = result["environment"]
    lines = [f"{about['cpu']}, {about['cores']} cores, 1 thread a process, {about['backend']}"]
    for found in result["results"]:
        ratio, wire, seconds = found["ratio_to_plain"], found["wire_bytes"], found["seconds"]
        lines += ["", f"{found['processes']} processes, {found['tokens_per_process']} tokens each"]
        lines += [f"  {name:<10}{one.median * 1e3:>9.1f} ms" for name, one in seconds.items()]
        lines[-1] += f"{ratio.median:>8.3f} x plain [{ratio.low:.3f}, {ratio.high:.3f}]"
        lines += [f"  sent      {wire['one_pass'] / 1e6:>9.2f} MB, {wire['ratio']:.4f} x one buffer"]
        for target in found["targets"]:
            met = "met" if target["met"] else "missed"
            lines.append(f"  target {target['name']} <= {target['at_most']}: {target['measured']:.3f}, {met}")
    return "\n".join(lines)


main = main_of(arguments, run, table)


if __name__ == "__main__":
    main()
