"""One gradient per task: exact rows of the Jacobian, at the price of plain training.

| engine           | cost                   | works for                                                               |
|------------------|------------------------|-------------------------------------------------------------------------|
| `one_pass`       | one backward           | rows of one task each that do not interact across tasks; wired layers   |
| `per_task`       | one backward per task  | any model; the reference                                                |
| `two_pass`       | two backwards, no rows | as `one_pass`; full fine-tuning, methods of losses or a Gramian         |
| `feature:MODULE` | heads T, body once     | gradients at a representation only: encoder and heads models            |

`LossWeights` (no gradient per task) and `OnlineProjection` (no row is kept) are cheaper and lose more.
"""

from mtl_opt.gradients.drop_in import backward
from mtl_opt.gradients.engines.choice import ENGINES
from mtl_opt.gradients.loss_weights import LossWeights
from mtl_opt.gradients.online_projection import OnlineProjection
from mtl_opt.gradients.step.loss_scaler import LossScaler
from mtl_opt.gradients.step.row_scales import LOSS_REDUCTIONS
from mtl_opt.gradients.step.window import WindowEstimate
from mtl_opt.gradients.task_gradients import TaskGradients

__all__ = [
    "ENGINES",
    "LOSS_REDUCTIONS",
    "LossScaler",
    "LossWeights",
    "OnlineProjection",
    "TaskGradients",
    "WindowEstimate",
    "backward",
]
