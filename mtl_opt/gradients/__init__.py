"""One gradient per task: exact rows of the Jacobian, at the price of plain training.

| engine     | cost                  | works for                                                                    |
|------------|-----------------------|------------------------------------------------------------------------------|
| `one_pass` | one backward          | rows of one task each that do not interact across tasks; wired layers only   |
| `per_task` | one backward per task | any model; the reference                                                     |
"""

from mtl_opt.gradients.backward import backward
from mtl_opt.gradients.engines import ENGINES
from mtl_opt.gradients.loss_scale import LossScaler
from mtl_opt.gradients.task_gradients import TaskGradients
from mtl_opt.gradients.window import WindowEstimate

__all__ = ["ENGINES", "LossScaler", "TaskGradients", "WindowEstimate", "backward"]
