"""Weights from the gradients of a window of steps, without the noise of single batches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from mtl_opt.checks import at_least
from mtl_opt.combiners.base import Combiner
from mtl_opt.combiners.common.solvers import nearest_semidefinite, relative_precision
from mtl_opt.combiners.wrappers.base import Wrapper

NUM_BLOCKS = 10
"""Number of blocks of steps in a window, each with sums of its own."""


class Denoised(Wrapper):
    r"""Compute a combiner's weights from the Gramian of the expected gradients, estimated over a window of steps.

    With the gradients $g_{t,s}$ of the last $N$ steps, $S_t = \sum_s g_{t,s}$ and $q_t = \sum_s \lVert g_{t,s}
    \rVert^2$, and $\Pi$ the nearest positive semidefinite matrix:

    $$ \hat G_{ij} = \frac{\langle S_i, S_j \rangle}{N^2}, \qquad
       \hat G_{ii} = \frac{\lVert S_i \rVert^2 - q_i}{N (N - 1)}, \qquad
       w = \text{weights of the combiner for } \Pi(\hat G), \qquad d = \sum_i w_i\, g_i $$

    The gradient of a batch is signal plus noise, and in fine-tuning with adapters the noise is many times larger: the
    sign of a cosine is then a coin, and a method that acts on it acts on noise. Products of different steps have
    no noise in their mean.

    `TaskGradients(window=N)` keeps the sums, in blocks of $N / 10$ steps, and hands over $\hat G$, with the plain mean
    squared norm of a task whose signal is not positive, and before the first full block the Gramian of the step. The
    combiner itself sees nothing but this matrix: `forward`, which gets one Jacobian, uses that Jacobian's own Gramian.

    Scale: that of the wrapped combiner.

    Undefined: where $\hat G$ is indefinite, frequent in short windows; its negative eigenvalues become 0.

    Cost: one more `[tasks, params]` buffer in `TaskGradients`, and an eigenvalue problem on `[tasks, tasks]`.

    Departures: there is no paper of this form; the estimate is the unbiased one of the squared norm of a mean.

    Args:
        combiner: A combiner that requires one Gramian over all layers.
        window: Steps $N$ of the window, a multiple of 10 and at least 20.

    Raises:
        ValueError: If the combiner does not require such a Gramian, or `window` is not allowed.

    Examples:
        >>> from mtl_opt.combiners.pcgrad import PCGrad
        >>> combiner = Denoised(PCGrad(), window=100)
        >>> combiner.requires, combiner.window
        ('window', 100)
        >>> combiner.weights(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))  # of the window
        tensor([1.5000, 1.5000])
    """

    def __init__(self, combiner: Combiner, window: int = 100) -> None:
        super().__init__(combiner)
        name = type(combiner).__name__
        if combiner.requires != "gramian" or combiner.by is not None:
            raise ValueError(f"`Denoised` must wrap a combiner that requires one Gramian of a step; `{name}` does not.")
        if combiner.over != "all":
            raise ValueError(
                f"`Denoised` must wrap a combiner that looks at all layers; `{name}` looks at {combiner.over!r} "
                "(its argument `layers`)."
            )
        at_least("window", window, 2 * NUM_BLOCKS)
        if window % NUM_BLOCKS:
            raise ValueError(f"`window` must be a multiple of {NUM_BLOCKS}, got {window}.")
        self.window = window
        self.requires = "window"

    @override
    def weights(
        self, gramian: Tensor | None, losses: Tensor | None = None, *, tasks: Sequence[int] | None = None
    ) -> Tensor:
        step = self.enter(gramian, losses, tasks)
        nearest = nearest_semidefinite(step.gramian.numpy(), relative_precision(step.like, len(step.tasks)))
        return self.inner.weights(step.leave(torch.from_numpy(nearest)), losses, tasks=step.tasks)
