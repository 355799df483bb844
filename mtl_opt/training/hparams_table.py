"""Every run of a comparison as a row of TensorBoard's HParams table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_opt.monitor import write_hparams

SETTINGS = ("method", "combiner", "sharing", "mixing", "norm_matched", "learning_rate", "seed", "task", "role")
COSTS = ("conflict_rate", "steps_per_second", "peak_memory_mb")


def write_hparams_row(folder: Path, line: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Write the row of one run beside its events; a run that has its row is left alone."""
    events = folder / "runs"
    if any(events.glob("*.hparams")):
        return
    values = {key: line["metrics"].get(key) for key in metrics} | {key: line[key] for key in COSTS}
    write_hparams(events, {key: line[key] for key in SETTINGS}, values)
