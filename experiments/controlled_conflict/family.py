"""Two quadratic tasks whose angle, norm ratio, curvature and gradient noise are set by knobs.

    f_i(x) = ⟨g_i, x⟩ + ½ h ‖x‖²        at x = 0:  ∇f_1 = g_1,  ∇f_2 = g_2,  cos(g_1, g_2) and ‖g_2‖ / ‖g_1‖ as wanted

g_1 has norm 1. The curvature h is that of both tasks in all directions, or, with `along`, of both tasks in the
direction of g_1 + g_2 alone: the curvature that a step of the plain sum meets. A batch's gradient is ∇f_i + noise, the
noise's expected squared norm being `noise` times ‖g_i‖².
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mtl_opt import Combiner, TaskGradients

PARAMS = 64


@dataclass(frozen=True)
class Knobs:
    """Set a problem.

    Attributes:
        cosine: Cosine of the true gradients at 0, above −1 and below 1.
        ratio: Norm of the second gradient over that of the first.
        curvature: h, in units of 1 over the learning rate that would take a unit gradient one unit far.
        along: Whether the curvature is that of the direction g_1 + g_2 alone.
        noise: Expected squared norm of the noise of a batch over the squared norm of its task's gradient at 0.
    """

    cosine: float
    ratio: float = 1.0
    curvature: float = 0.0
    along: bool = False
    noise: float = 0.0


@dataclass
class Problem:
    """Hold the gradients at 0 and the common curvature of a setting of the knobs.

    Attributes:
        knobs: The setting.
        slopes: g_1 and g_2. `[tasks, params]`
        curved: Projection onto the directions that are curved. `[params, params]`
    """

    knobs: Knobs
    slopes: Tensor = field(init=False)
    curved: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Lay the gradients into the plane of the first two axes."""
        knobs = self.knobs
        self.slopes = torch.zeros(2, PARAMS, dtype=torch.float64)
        self.slopes[0, 0] = 1.0
        sine = (1 - knobs.cosine**2) ** 0.5
        self.slopes[1, :2] = knobs.ratio * torch.tensor([knobs.cosine, sine], dtype=torch.float64)
        total = self.slopes.sum(0)
        unit = total / total.norm()
        self.curved = torch.outer(unit, unit) if knobs.along else torch.eye(PARAMS, dtype=torch.float64)

    def losses(self, x: Tensor) -> Tensor:  # [params] -> [tasks]
        """Compute the true losses, which are 0 at 0."""
        return self.slopes @ x + 0.5 * self.knobs.curvature * (x @ self.curved @ x)

    def gradients(self, x: Tensor) -> Tensor:  # [params] -> [tasks, params]
        """Compute the true gradients."""
        return self.slopes + self.knobs.curvature * (self.curved @ x)

    def noise(self, generator: torch.Generator) -> Tensor:  # -> [tasks, params]
        """Draw the noise of a batch."""
        size = self.slopes.norm(dim=1, keepdim=True) * (self.knobs.noise / PARAMS) ** 0.5
        return torch.randn(2, PARAMS, generator=generator, dtype=torch.float64) * size


class Point(nn.Module):
    """Hold the parameters, so that task gradients are taken as of any model."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(PARAMS, dtype=torch.float64))


@dataclass
class Course:
    """Hold what a method did.

    Attributes:
        x: Last parameters. `[params]`
        losses: True losses at the end. `[tasks]`
        conflicts: Share of the steps whose batch gradients had a negative inner product.
        updates: Mean of the combined gradients. `[params]`
        power: Mean squared norm of the combined gradients.
        corrected_cosine: Cosine of the expected gradients as the last window estimates it; NaN without one.
    """

    x: Tensor
    losses: Tensor
    conflicts: float
    updates: Tensor
    power: float
    corrected_cosine: float


def descend(problem: Problem, combiner: Combiner, *, lr: float, steps: int, seed: int = 0) -> Course:
    """Take steps of gradient descent with a combiner, through `TaskGradients`."""
    model, generator = Point(), torch.Generator().manual_seed(seed)
    grads = TaskGradients(model, ["first", "second"], "per_task", window=combiner.window)
    conflicts, power, updates = 0, 0.0, torch.zeros(PARAMS, dtype=torch.float64)
    for _ in range(steps):
        losses = problem.losses(model.x) + problem.noise(generator) @ model.x
        grads.backward(losses)
        conflicts += int(grads.gramian()[0, 1] < 0)
        grads.combine(combiner)
        update = model.x.grad
        assert update is not None
        updates += update / steps
        power += float(update @ update) / steps
        with torch.no_grad():
            model.x -= lr * update
        grads.zero()
    x = model.x.detach().clone()
    return Course(x, problem.losses(x), conflicts / steps, updates, power, _corrected(grads))


def _corrected(grads: TaskGradients) -> float:
    """Read the noise-corrected cosine of the two tasks."""
    if grads.window is None:
        return float("nan")
    gramian = grads.window.estimate().gramian
    return float(gramian[0, 1] / (gramian[0, 0] * gramian[1, 1]).clamp(min=0).sqrt())
