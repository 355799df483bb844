"""Mixings that learn from the losses of earlier steps."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from mtl_opt.data.mixing.base import Facts, Mixer, check_argument, normalised, with_floor
from mtl_opt.errors import UnknownNameError


class LossMixer(Mixer):
    """Derive shares from a moving average of every task's loss, and its first value; `weights` says how.

    Args:
        facts: Facts of the data.
        smoothing: Fraction of the moving average that every step keeps.
        floor: Fraction of the rows that all tasks share evenly.
    """

    learns = True

    def __init__(self, facts: Facts, smoothing: float, floor: float) -> None:
        self.floor = check_argument("floor", floor, 0, 1)
        self.smoothing = check_argument("smoothing", smoothing, 0, 0.999999)
        self.tasks = facts.tasks
        self.first: list[float | None] = [None] * len(self.tasks)
        self.mean: list[float | None] = [None] * len(self.tasks)

    @abstractmethod
    def weights(self) -> list[float]:  # [tasks]
        """Compute positive weights, to which the shares above the floor are proportional."""

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the losses decide
        """Normalise the weights, and apply the floor."""
        return with_floor(normalised(self.weights()), self.floor)

    def observe(self, losses: Mapping[str, float], step: int) -> None:  # noqa: ARG002 - all steps count alike
        """Update the averages; tasks that were absent keep theirs."""
        for number, task in enumerate(self.tasks):
            loss = losses.get(task, math.nan)
            if not math.isfinite(loss):
                continue
            before = self.mean[number]
            if before is None:
                self.first[number] = self.mean[number] = loss
            else:
                self.mean[number] = self.smoothing * before + (1 - self.smoothing) * loss

    def state_dict(self) -> dict[str, Any]:
        """Return first losses and averages."""
        return {"first": list(self.first), "mean": list(self.mean)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.first, self.mean = list(state["first"]), list(state["mean"])


class LearningSpeedMixing(LossMixer):
    """Give slow tasks more rows: weights `(loss / first loss) ** alpha`, losses smoothed.

    Args:
        facts: Facts of the data.
        alpha: Strength; 0 gives equal shares.
        smoothing: Fraction of the moving average of losses that every step keeps.
        floor: Fraction of the rows that all tasks share evenly.
    """

    summary = "slow tasks get more: (loss / first loss) ** alpha"

    def __init__(self, facts: Facts, alpha: float = 2.0, smoothing: float = 0.9, floor: float = 0.1) -> None:
        self.alpha = check_argument("alpha", alpha, 0)
        super().__init__(facts, smoothing, floor)

    def weights(self) -> list[float]:
        """Raise the remaining fraction of the first loss to `alpha`; a task without losses counts as unchanged."""
        pairs = zip(self.mean, self.first, strict=True)
        left = [1.0 if mean is None or not first else max(mean, 0.0) / abs(first) for mean, first in pairs]
        return [max(part, 1e-6) ** self.alpha for part in left]


class LossSoftmax(LossMixer):
    """Give tasks with a high loss more rows: weights `exp(loss / temperature)`, losses smoothed.

    Args:
        facts: Facts of the data.
        temperature: The lower, the more rows go to the task with the highest loss.
        smoothing: Fraction of the moving average of losses that every step keeps.
        floor: Fraction of the rows that all tasks share evenly.
    """

    summary = "softmax(loss / temperature)"

    def __init__(self, facts: Facts, temperature: float = 1.0, smoothing: float = 0.9, floor: float = 0.1) -> None:
        self.temperature = check_argument("temperature", temperature, 1e-6)
        super().__init__(facts, smoothing, floor)

    def weights(self) -> list[float]:
        """Exponentiate the losses; a task without losses counts like the highest one."""
        highest = max((mean for mean in self.mean if mean is not None), default=0.0)
        exponents = [(highest if mean is None else mean) - highest for mean in self.mean]
        return [math.exp(e / self.temperature) for e in exponents]


class Bandit(Mixer):
    """Give tasks with a high reward more rows, as EXP3 does, with exploration that shrinks over the steps.

    With `reward: loss` this is online data mixing: `R <- smoothing R + (1 - smoothing) reward / share`, and
    `share = (1 - K e_t) softmax(e_{t-1} R) + e_t` with `e_t = min(1 / K, sqrt(ln K / (K t)))` for K tasks. Departure:
    all tasks of a step are rewarded in that step, not one.

    Args:
        facts: Facts of the data.
        reward: "loss", or "progress": by how much the loss fell since the task was last seen.
        smoothing: Fraction of the reward that every step keeps.

    References:
        Albalak et al., "Efficient online data mixing for language model pre-training", 2023, algorithm 1.
    """

    summary = "EXP3: tasks whose loss (or progress) is high get more"
    learns = True

    def __init__(self, facts: Facts, reward: str = "loss", smoothing: float = 0.9) -> None:
        if reward not in {"loss", "progress"}:
            raise UnknownNameError("value of `mixing_args.reward`:", reward, ("loss", "progress"))
        self.tasks = facts.tasks
        self.reward = reward
        self.smoothing = check_argument("smoothing", smoothing, 0, 0.999999)
        self.rewards = [0.0] * len(self.tasks)
        self.last: list[float | None] = [None] * len(self.tasks)
        self.current = [1 / len(self.tasks)] * len(self.tasks)

    def exploration(self, step: int) -> float:
        """Compute the share `e_t` that every task has at least in a step."""
        count = len(self.tasks)
        return min(1 / count, math.sqrt(math.log(count) / (count * step))) if step > 0 and count > 1 else 1 / count

    def shares(self, step: int) -> list[float]:
        """Compute the shares from the rewards so far."""
        explore = self.exploration(step)
        scaled = [self.exploration(step - 1) * reward for reward in self.rewards]
        # Softmax, shifted by the maximum so that nothing overflows.
        greedy = normalised([math.exp(value - max(scaled)) for value in scaled])
        self.current = normalised([(1 - len(greedy) * explore) * share + explore for share in greedy])
        return self.current

    def observe(self, losses: Mapping[str, float], step: int) -> None:  # noqa: ARG002 - all steps count alike
        """Reward the tasks that were present."""
        for number, task in enumerate(self.tasks):
            loss = losses.get(task, math.nan)
            if not math.isfinite(loss):
                continue
            before = self.last[number]
            self.last[number] = loss
            gain = loss if self.reward == "loss" else (0.0 if before is None else before - loss)
            # Importance weighting, bounded where a share has become tiny.
            estimate = gain / max(self.current[number], 1e-3)
            self.rewards[number] = self.smoothing * self.rewards[number] + (1 - self.smoothing) * estimate

    def state_dict(self) -> dict[str, Any]:
        """Return rewards, last losses and shares."""
        return {"rewards": list(self.rewards), "last": list(self.last), "current": list(self.current)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.rewards, self.last = list(state["rewards"]), list(state["last"])
        self.current = list(state["current"])
