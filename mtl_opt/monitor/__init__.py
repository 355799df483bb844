"""What happened in training: one event per step, averaged between log lines, written where people look.

Mathematics never logs. A step gives a `StepEvent`; an `EventWindow` averages events into flat numbers; writers
(`TensorBoardWriter`, `TrainerLog`) take those.
"""

from mtl_opt.monitor.conflict import EventWindow, scalars
from mtl_opt.monitor.events import StepEvent
from mtl_opt.monitor.heatmap import cosine_heatmap
from mtl_opt.monitor.json_lines import TrainerLog
from mtl_opt.monitor.tensorboard import TensorBoardWriter

__all__ = ["EventWindow", "StepEvent", "TensorBoardWriter", "TrainerLog", "cosine_heatmap", "scalars"]
