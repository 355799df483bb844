"""What does `mtl-opt compare` spend outside of training steps and evaluation?

`python -m benchmarks.compare [--json] [--jobs N] [--quick]` compares two methods and the single-task baselines on the
embedded example, and reads `grid.json`: `overhead_share` is the part of the wall time (times the number of jobs) that
is neither a step nor evaluation; the target is 5 %. `--quick` takes 20 steps a run, where overhead weighs most.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TARGET = 0.05


def measure(jobs: int, steps: int) -> dict[str, Any]:
    """Run one comparison in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "comparison"
        settings = [f"output_dir={output}", "combiners=[sum, pcgrad]", "seeds=[0]"]
        command = [sys.executable, "-m", "mtl_opt.cli", "compare", *settings]
        options = ["--jobs", str(jobs), "--budget", str(steps)]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        grid = json.loads((output / "grid.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "jobs": jobs,
        "steps": steps,
        "runs": len(lines),
        "wall_seconds": grid["wall_seconds"],
        "overhead_share": grid["overhead_share"],
        "overhead_seconds_per_run": sum(line["overhead_seconds"] for line in lines) / len(lines),
        "hardware": lines[0]["provenance"]["hardware"],
        "torch": lines[0]["provenance"]["torch"],
        "target": TARGET,
        "met": grid["overhead_share"] <= TARGET,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (1)")
    parser.add_argument("--quick", action="store_true", help="20 steps a run instead of 110")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args(argv)
    jobs = options.jobs
    found = measure(jobs, 20 if options.quick else 110)
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['runs']} runs of {found['steps']} steps, {jobs} at a time: {found['wall_seconds']:.0f} s, "
              f"{100 * found['overhead_share']:.1f} % outside of steps and evaluation (target {100 * TARGET:.0f} %), "
              f"{found['overhead_seconds_per_run']:.2f} s of each run.")  # fmt: skip


if __name__ == "__main__":
    main()
