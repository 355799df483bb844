"""What happened in training: one event per step, averaged between log lines, written where people look.

Mathematics never logs. A step gives a `StepEvent`; an `EventWindow` averages events into flat numbers; writers
(`TensorBoardWriter`, `TrainerLog`) take those. `diagnose` turns events into a diagnosis of the conflict, one line of
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
