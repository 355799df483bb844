"""Losses as methods need them: checked, with a softmax and shares that cannot overflow."""

import numpy as np

from mtl_opt.combiners.base import CheckedInput, Combiner

SMALLEST_LOSS = 1e-30
"""A positive loss counts as at least this, so that no weight leaves the range of float32."""


def needed_losses(combiner: Combiner, step: CheckedInput) -> np.ndarray:  # [present]
    """Return the losses of a step; raise where there are none."""
    if step.losses is None:
        raise ValueError(f"`{type(combiner).__name__}` needs `losses` [tasks], got None.")
    return step.losses.numpy()


def non_negative_losses(
    combiner: Combiner,
    step: CheckedInput,
    least: np.ndarray | float = 0.0,  # [present]
) -> np.ndarray:  # [present]
    """Return how far the losses lie above their lower bounds; raise where one lies below."""
    losses = needed_losses(combiner, step)
    bounds = np.broadcast_to(least, losses.shape)
    for task, loss, bound in zip(step.tasks, losses, bounds, strict=True):
        if loss < bound:
            name = combiner.tasks[task] if combiner.tasks else task
            raise ValueError(
                f"The loss of task `{name}` must be at least {bound:g} for {type(combiner).__name__}, got {loss:g}."
            )
    return losses - bounds


def softmax(values: np.ndarray, temperature: float = 1.0) -> np.ndarray:  # [n] -> [n]
    """Compute the softmax of numbers divided by a temperature, without overflow."""
    with np.errstate(over="ignore"):  # a share that overflows here is 0
        shares = np.exp((values - values.max()) / temperature)
    return shares / shares.sum()


def preference_shares(preference: np.ndarray) -> np.ndarray:  # [present] -> [present]
    """Scale a preference to add up to 1 over the present tasks."""
    relative = preference / preference.max()  # first to at most 1: a sum of large numbers could overflow
    return relative / relative.sum()
