"""What the methods of the losses descend, written down as in the papers; autograd gives the weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradient(function: Callable[[Tensor], Tensor], losses: Tensor) -> Tensor:  # [tasks] -> [tasks]
    """Differentiate a function of the losses."""
    leaf = losses.detach().clone().double().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def losses_over_scales(num_tasks: int, decades: float, seed: int) -> Tensor:  # [tasks]
    """Draw positive losses whose sizes spread over some decades either side of 1."""
    generator = torch.Generator().manual_seed(seed)
    exponents = (torch.rand(num_tasks, generator=generator, dtype=torch.float64) * 2 - 1) * decades
    return 10**exponents


def geometric_mean(losses: Tensor) -> Tensor:
    """Multiply, and take the root."""
    return losses.prod() ** (1 / len(losses))


def log_sum(losses: Tensor) -> Tensor:
    """Add the logarithms."""
    return losses.log().sum()


def soft_optimal_uncertainty(losses: Tensor, temperature: float) -> Tensor:
    """Weight by a softmax over inverse losses that are taken as constants."""
    constant = losses.detach()
    powers = torch.exp(1 / constant / temperature)
    return (powers / powers.sum() * losses).sum()


def smooth_tchebycheff(losses: Tensor, mu: float, preference: Tensor, ideal: Tensor) -> Tensor:
    """Take the logarithm of a sum of exponentials."""
    return mu * torch.log(torch.exp(preference * (losses - ideal) / mu).sum())


def cosmos(losses: Tensor, lambda_: float, preference: Tensor) -> Tensor:
    """Reward the cosine between losses and preference."""
    inner = (preference * losses).sum()
    return inner - lambda_ * inner / (preference.square().sum().sqrt() * losses.square().sum().sqrt())


def pbi(losses: Tensor, theta: float, preference: Tensor, ideal: Tensor) -> Tensor:
    """Add the distances along the preferred direction and from it."""
    direction = preference / preference.square().sum().sqrt()
    along = ((losses - ideal) * direction).sum()
    return along + theta * (losses - ideal - along * direction).square().sum().sqrt()


def famo(losses: Tensor, logits: Tensor, least: Tensor) -> Tensor:
    """Weight the logarithms, with the constant that makes the derivatives add up to 1."""
    shares = torch.exp(logits) / torch.exp(logits).sum()
    above = losses - least + 1e-8
    constant = 1 / (shares / above.detach()).sum()
    return constant * (shares * torch.log(above)).sum()


class FAMOReference:
    """FAMO with autograd through the softmax and `torch.optim.Adam`; each logit is a leaf of its own, for absence."""

    def __init__(self, num_tasks: int, lr: float, weight_decay: float, least: Tensor) -> None:
        self.least = least
        self.logits = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(num_tasks)]
        self.optimizer = torch.optim.Adam(self.logits, lr=lr, weight_decay=weight_decay)

    def weights(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:  # [present] -> [present]
        """Differentiate the weighted logarithms."""
        logits = torch.stack([self.logits[t].detach() for t in tasks])
        return gradient(lambda leaf: famo(leaf, logits, self.least[tasks]), losses)

    def observe(self, before: Tensor, after: Tensor, tasks: Sequence[int]) -> None:  # [present], [present]
        """Move the logits against the share-weighted gains."""
        self.optimizer.zero_grad()
        shares = torch.stack([self.logits[t] for t in tasks]).softmax(0)
        least = self.least[tasks]
        gains = torch.log(before - least + 1e-8) - torch.log(after - least + 1e-8)
        (shares * gains).sum().backward()
        self.optimizer.step()


class IMTLLReference:
    """IMTL-L with autograd on the scales and `torch.optim.Adam`; each scale is a leaf of its own, for absence."""

    def __init__(self, num_tasks: int, lr: float) -> None:
        self.scales = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(num_tasks)]
        self.optimizer = torch.optim.Adam(self.scales, lr=lr)

    def step(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:  # [present] -> [present]
        """Return the derivatives by the losses, and learn the next scales."""
        leaf = losses.detach().clone().requires_grad_()
        self.optimizer.zero_grad()
        sum(self.scales[t].exp() * loss - self.scales[t] for loss, t in zip(leaf, tasks, strict=True)).backward()
        self.optimizer.step()
        assert leaf.grad is not None
        return leaf.grad


class DWAReference:
    """Dynamic weight average with every loss kept in a list."""

    def __init__(self, num_tasks: int, temperature: float, window: int) -> None:
        self.temperature = temperature
        self.window = window
        self.losses: list[list[float]] = [[] for _ in range(num_tasks)]

    def step(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:  # [present] -> [present]
        """Compare the last two complete windows of each task."""
        ratios = []
        for task, loss in zip(tasks, losses.tolist(), strict=True):
            seen = self.losses[task]
            means = [
                sum(seen[at : at + self.window]) / self.window
                for at in range(0, len(seen) - self.window + 1, self.window)
            ]
            ratios.append(means[-1] / means[-2] if len(means) >= 2 else 1.0)
            seen.append(loss)
        powers = torch.exp(torch.tensor(ratios, dtype=torch.float64) / self.temperature)
        return len(tasks) * powers / powers.sum()


class LearningSpeedReference:
    """Learning speed with every loss kept in a list."""

    def __init__(self, num_tasks: int, temperature: float, window: int) -> None:
        self.temperature = temperature
        self.window = window
        self.losses: list[list[float]] = [[] for _ in range(num_tasks)]

    def step(self, losses: Tensor, tasks: Sequence[int]) -> Tensor:  # [present] -> [present]
        """Compare the latest losses with the first ones."""
        descents = []
        for task, loss in zip(tasks, losses.tolist(), strict=True):
            seen = self.losses[task]
            seen.append(loss)
            first, latest = seen[: self.window], seen[-self.window :]
            start = sum(first) / len(first)
            descents.append((start - sum(latest) / len(latest)) / start)
        powers = torch.exp(-torch.tensor(descents, dtype=torch.float64) / self.temperature)
        return powers / powers.sum()
