"""Monitoring: one event per step, averaged between log lines, written to logs and TensorBoard.

The mathematics never logs. A step yields a `StepEvent`; an `EventWindow` averages events into flat numbers; writers
(`TensorBoardWriter`, `TrainerLog`) write those. `diagnose` turns events into a diagnosis of the conflict, one line of
`conflict.jsonl`.
"""

from mtl_opt.monitor.conflict_line import ConflictLog, diagnose, diagnosis_scalars
from mtl_opt.monitor.events import ShadowReading, StepEvent, WindowReading
from mtl_opt.monitor.heatmap import cosine_heatmap
from mtl_opt.monitor.hparams import write_hparams
from mtl_opt.monitor.json_lines import TrainerLog
from mtl_opt.monitor.log_numbers import EventWindow, scalars
from mtl_opt.monitor.tensorboard import TensorBoardWriter

__all__ = [
    "ConflictLog",
    "EventWindow",
    "ShadowReading",
    "StepEvent",
    "TensorBoardWriter",
    "TrainerLog",
    "WindowReading",
    "cosine_heatmap",
    "diagnose",
    "diagnosis_scalars",
    "scalars",
    "write_hparams",
]
