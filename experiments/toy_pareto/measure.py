"""Where do the combiners end on two-parameter problems whose Pareto sets are known?

The two-task toy of CAGrad and Nash-MTL in four published settings, and TorchJD's three convex problems. `--quick` runs
what the robust verdicts need; a full run gives every registered combiner the Nash setting and the convex problems, and
the other settings the methods that were compared there. Trajectories are written to `--output`, as `trajectories.npz`
and, where matplotlib is installed, as PNG.
"""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.command import in_processes, say
from experiments.toy_pareto.convex import CONVEX, convex
from experiments.toy_pareto.descent import Descent, two_tasks
from experiments.toy_pareto.plots import draw
from experiments.toy_pareto.two_tasks import VARIANTS
from experiments.toy_pareto.verdicts import NEEDED, of_published_figures, on_pareto_set, robust
from mtl_opt import COMBINERS

FULL = {
    "cagrad": ("sum", "mgda", "pcgrad", "cagrad", "nash_mtl", "aligned_mtl", "dualproj"),
    "nash": tuple(COMBINERS),
    "nash_corner": ("sum",),
    "famo": ("sum", "pcgrad", "cagrad", "famo"),
    "aligned": ("sum", "pcgrad", "cagrad", "aligned_mtl", "config", "mgda", "imtl_g", "nash_mtl"),
    **dict.fromkeys(CONVEX, tuple(COMBINERS)),
}


def run(setting: str, name: str) -> Descent:
    """Run a combiner in a setting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what a combiner could not do is among the notes
        return two_tasks(name, setting) if setting in VARIANTS else convex(name, setting)


def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    """Run everything, write the trajectories and judge."""
    wanted = NEEDED if options.quick else FULL
    calls = [(setting, name) for setting, names in wanted.items() for name in names]
    calls.sort(key=lambda call: call[0] in CONVEX)  # the long ones first
    descents = in_processes(options.jobs, run, calls, "settings × combiners")
    found: dict[str, dict[str, Descent]] = {setting: {} for setting in wanted}
    for (setting, name), descent in zip(calls, descents, strict=True):
        found[setting][name] = descent
    write(found, options.output)
    verdicts = robust(found) | ({} if options.quick else of_published_figures(found))
    return {"verdicts": verdicts, "settings": {setting: _described(setting, of) for setting, of in found.items()}}


def _described(setting: str, found: Mapping[str, Descent]) -> dict[str, Any]:
    """List where the runs of each combiner ended."""

    def far(descent: Descent) -> dict[str, Any]:
        if setting in VARIANTS:
            return {"on_pareto_set": on_pareto_set(descent.points)}
        return {"distance": CONVEX[setting].distance(descent.points)}

    return {
        name: {"points": d.points, "losses": d.losses, "steps": d.steps, **far(d), "notes": d.notes}
        for name, d in found.items()
    }


def write(found: Mapping[str, Mapping[str, Descent]], folder: Path) -> None:
    """Write the trajectories, and draw them where that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        f"{setting}/{name}/{run}": path
        for setting, of in found.items()
        for name, descent in of.items()
        for run, path in enumerate(descent.paths)
    }
    np.savez_compressed(folder / "trajectories.npz", allow_pickle=False, **paths)
    drawn = [draw(setting, of, folder / f"{setting}.png") for setting, of in found.items()]
    say(f"trajectories: {folder}" + ("" if all(drawn) else " (no pictures: matplotlib is not installed)"))
