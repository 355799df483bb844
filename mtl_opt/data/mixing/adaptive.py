"""Mixings that learn from the losses of the steps that were taken."""

import math
from collections.abc import Mapping
from typing import Any

from mtl_opt.data.mixing.base import Facts, Mixer, check_argument, normalised, with_floor
from mtl_opt.errors import UnknownNameError


class LossAverage:
    """Keep a moving average of every task's loss, and its first value.

    Args:
        tasks: Names of the tasks.
        smoothing: Part of the average that stays with every new value.
    """

    def __init__(self, tasks: list[str], smoothing: float) -> None:
        self.tasks = tasks
        self.smoothing = check_argument("smoothing", smoothing, 0, 0.999999)
        self.first: list[float | None] = [None] * len(tasks)
        self.mean: list[float | None] = [None] * len(tasks)

    def add(self, losses: Mapping[str, float]) -> None:
        """Take the losses of a step; tasks that were absent keep their average."""
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
        """Give both."""
        return {"first": list(self.first), "mean": list(self.mean)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.first, self.mean = list(state["first"]), list(state["mean"])


class LearningSpeedMixing(Mixer):
    """Give slow tasks more: a share like `(loss / first loss) ** alpha`, losses smoothed.

    Args:
        facts: What is known of the data.
        alpha: How much more; 0 is equal shares.
        smoothing: Part of the moving average of losses that stays with every step.
        floor: Part of the rows that all tasks share evenly.
    """

    summary = "slow tasks get more: (loss / first loss) ** alpha"
    learns = True

    def __init__(self, facts: Facts, alpha: float = 2.0, smoothing: float = 0.9, floor: float = 0.1) -> None:
        self.alpha = check_argument("alpha", alpha, 0)
        self.floor = check_argument("floor", floor, 0, 1)
        self.losses = LossAverage(facts.tasks, smoothing)

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the losses decide
        """Give shares by the part of the first loss that is left; a task not seen yet counts as not having moved."""
        pairs = zip(self.losses.mean, self.losses.first, strict=True)
        left = [1.0 if mean is None or not first else max(mean, 0.0) / abs(first) for mean, first in pairs]
        weights = [max(part, 1e-6) ** self.alpha for part in left]
        return with_floor(normalised(weights), self.floor)

    def observe(self, losses: Mapping[str, float], step: int) -> None:  # noqa: ARG002 - every step counts the same
        """Average the losses."""
        self.losses.add(losses)

    def state_dict(self) -> dict[str, Any]:
        """Give the averages."""
        return self.losses.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.losses.load_state_dict(state)


class LossSoftmax(Mixer):
    """Give tasks with a high loss more: `softmax(loss / temperature)`, losses smoothed.

    Args:
        facts: What is known of the data.
        temperature: The lower, the more goes to the highest loss.
        smoothing: Part of the moving average of losses that stays with every step.
        floor: Part of the rows that all tasks share evenly.
    """

    summary = "softmax(loss / temperature)"
    learns = True

    def __init__(self, facts: Facts, temperature: float = 1.0, smoothing: float = 0.9, floor: float = 0.1) -> None:
        self.temperature = check_argument("temperature", temperature, 1e-6)
        self.floor = check_argument("floor", floor, 0, 1)
        self.losses = LossAverage(facts.tasks, smoothing)

    def shares(self, step: int) -> list[float]:  # noqa: ARG002 - the losses decide
        """Give shares by softmax; a task not seen yet counts like the highest loss."""
        known = [mean for mean in self.losses.mean if mean is not None]
        highest = max(known, default=0.0)
        exponents = [(highest if mean is None else mean) - highest for mean in self.losses.mean]
        return with_floor(normalised([math.exp(e / self.temperature) for e in exponents]), self.floor)

    def observe(self, losses: Mapping[str, float], step: int) -> None:  # noqa: ARG002 - every step counts the same
        """Average the losses."""
        self.losses.add(losses)

    def state_dict(self) -> dict[str, Any]:
        """Give the averages."""
        return self.losses.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.losses.load_state_dict(state)


class Bandit(Mixer):
    """Choose like EXP3: tasks whose reward was high get more, with exploration that shrinks over the steps.

    With `reward: loss` this is online data mixing: `R <- smoothing R + (1 - smoothing) reward / share`, and
    `share = (1 - K e_t) softmax(e_{t-1} R) + e_t` with `e_t = min(1 / K, sqrt(ln K / (K t)))` for K tasks. Departure:
    all tasks of a step are rewarded in that step, not one.

    Args:
        facts: What is known of the data.
        reward: The loss itself, or by how much it fell since the step before the task was seen last.
        smoothing: Part of the reward that stays with every step.

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
        """Give the share that every task has at least, at a step."""
        count = len(self.tasks)
        return min(1 / count, math.sqrt(math.log(count) / (count * step))) if step > 0 and count > 1 else 1 / count

    def shares(self, step: int) -> list[float]:
        """Give shares by the rewards so far."""
        explore = self.exploration(step)
        scaled = [self.exploration(step - 1) * reward for reward in self.rewards]
        greedy = normalised([math.exp(value - max(scaled)) for value in scaled])
        self.current = normalised([(1 - len(greedy) * explore) * share + explore for share in greedy])
        return self.current

    def observe(self, losses: Mapping[str, float], step: int) -> None:  # noqa: ARG002 - every step counts the same
        """Reward the tasks that were present."""
        for number, task in enumerate(self.tasks):
            loss = losses.get(task, math.nan)
            if not math.isfinite(loss):
                continue
            before = self.last[number]
            self.last[number] = loss
            gain = loss if self.reward == "loss" else (0.0 if before is None else before - loss)
            # Importance weighting, bounded where exploration has made a share tiny.
            estimate = gain / max(self.current[number], 1e-3)
            self.rewards[number] = self.smoothing * self.rewards[number] + (1 - self.smoothing) * estimate

    def state_dict(self) -> dict[str, Any]:
        """Give rewards, last losses and shares."""
        return {"rewards": list(self.rewards), "last": list(self.last), "current": list(self.current)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.rewards, self.last = list(state["rewards"]), list(state["last"])
        self.current = list(state["current"])
