"""Statistics of the last steps' rows: what the gradients have in common, without the noise of single batches.

A mini-batch gradient is signal plus noise, and in LoRA fine-tuning the noise is far larger. Products of *different*
steps (or of different tasks, which draw their rows independently) have no noise in their mean; only a row's product
with itself has. With the running sum `S_t = Σ_s g_{t,s}` over n steps and `q_t = Σ_s ‖g_{t,s}‖²`

    (‖S_t‖² - q_t) / (n (n - 1))   is unbiased for ‖E g_t‖²,
    ⟨S_i, S_j⟩ / (n_i n_j)         is unbiased for ⟨E g_i, E g_j⟩.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NUM_BLOCKS = 10
"""Blocks of a window: a sum can neither slide nor be jackknifed, ten sums one after the other can."""


class WindowLengthError(ValueError):
    """Raised for a number of steps that does not divide into the blocks of a window."""


@dataclass(frozen=True)
class WindowEstimate:
    """Estimates of the gradients of the last steps by block; NaN where a task was in fewer than two steps.

    Attributes:
        blocks: Unbiased estimate of the Gramian of the expected gradients in each block. `[blocks, tasks, tasks]`
        power: Mean squared norm of a single step's gradient in each block: signal plus noise. `[blocks, tasks]`
    """

    blocks: Tensor  # [blocks, tasks, tasks]
    power: Tensor  # [blocks, tasks]

    @property
    def gramian(self) -> Tensor:  # [tasks, tasks]
        """Mean over the blocks; its diagonal, the signal, can come out negative `[tasks, tasks]`."""
        return self.blocks.nanmean(0)

    @property
    def signal_to_noise(self) -> Tensor:  # [tasks]
        """Squared norm of the expected gradient over the variance of a single step's `[tasks]`."""
        signal = self.gramian.diagonal()
        return signal / (self.power.nanmean(0) - signal)


class Window:
    """Accumulate the rows of the last steps, in ten blocks.

    Args:
        num_tasks: Number of tasks.
        steps: Steps of the window, a multiple of 10 and at least 20.
        like: Rows as they will be added; the sums get their dtype and device. `[tasks, params]`

    Raises:
        ValueError: If `steps` is not allowed.
    """

    def __init__(self, num_tasks: int, steps: int, like: Tensor) -> None:
        if steps < 2 * NUM_BLOCKS or steps % NUM_BLOCKS:
            raise WindowLengthError(
                f"`window` must be a multiple of {NUM_BLOCKS} and at least {2 * NUM_BLOCKS}, got {steps}."
            )
        self.steps_per_block = steps // NUM_BLOCKS
        self.sums = torch.zeros_like(like)
        self.seen = torch.zeros(num_tasks, dtype=torch.float64)
        self.squares = torch.zeros(num_tasks, dtype=torch.float64)
        self.steps = 0  # of the block under way
        self.blocks: deque[tuple[Tensor, Tensor]] = deque(maxlen=NUM_BLOCKS)

    def add(self, rows: Tensor, squares: Tensor, present: Sequence[int]) -> bool:  # [tasks, params], [tasks]
        """Add the rows of a step; return whether the block is full."""
        self.sums.add_(rows)
        self.squares += squares.double().cpu()
        self.seen[list(present)] += 1
        self.steps += 1
        return self.steps == self.steps_per_block

    def finish_block(self, product: Tensor) -> None:  # [tasks, tasks]
        """Turn the sums of a block into estimates and begin the next one."""
        product, seen = product.double().cpu(), self.seen
        # ⟨S_i, S_j⟩ / (n_i n_j): steps of different tasks are independent, so noise drops out. On the diagonal it does
        # not, so the q of the module docstring is subtracted.
        gramian = product / (seen[:, None] * seen[None, :])
        signal = (product.diagonal() - self.squares) / (seen * (seen - 1))
        gramian.diagonal().copy_(torch.where(seen > 1, signal, torch.nan))
        self.blocks.append((gramian, self.squares / seen))
        self.sums.zero_()
        self.seen, self.squares, self.steps = torch.zeros_like(seen), torch.zeros_like(seen), 0

    def estimate(self) -> WindowEstimate | None:
        """Return the estimates of the full blocks; None before the first."""
        if not self.blocks:
            return None
        return WindowEstimate(*(torch.stack(parts) for parts in zip(*self.blocks, strict=True)))

    def gramian(self, of_step: Tensor) -> Tensor:  # [tasks, tasks] -> [tasks, tasks]
        """Compute the noise-corrected Gramian that a combiner can take its weights from."""
        estimate = self.estimate()
        if estimate is None:
            return of_step
        gramian, own = estimate.gramian, of_step.double().cpu()
        power = estimate.power.nanmean(0)
        # An estimate of a squared norm can be negative; the noisy power is then the safe diagonal.
        signal = gramian.diagonal().clone()
        gramian.diagonal().copy_(torch.where(signal > 0, signal, power))
        return torch.where(gramian.isfinite(), gramian, own).to(of_step)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the estimates depend on."""
        estimate = self.estimate()
        return {
            "sums": self.sums, "seen": self.seen, "squares": self.squares, "steps": self.steps,
            "steps_per_block": self.steps_per_block,
            "blocks": None if estimate is None else estimate.blocks,
            "power": None if estimate is None else estimate.power,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        if state["steps_per_block"] != self.steps_per_block or state["sums"].shape != self.sums.shape:
            raise ValueError(
                f"The saved window has {state['steps_per_block'] * NUM_BLOCKS} steps over rows "
                f"{tuple(state['sums'].shape)}; this one {self.steps_per_block * NUM_BLOCKS} over "
                f"{tuple(self.sums.shape)}."
            )
        self.sums.copy_(state["sums"])
        self.seen, self.squares, self.steps = state["seen"].clone(), state["squares"].clone(), int(state["steps"])
        self.blocks.clear()
        if state["blocks"] is not None:
            self.blocks.extend(zip(state["blocks"], state["power"], strict=True))
