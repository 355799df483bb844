"""How low-rank adapters are put into a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoraSettings:
    """Say how LoRA adapters are put into the model.

    Attributes:
        rank: Rank of every adapter.
        alpha: Scale of the adapters; the update is multiplied by alpha / rank.
        dropout: Share of the adapter inputs that are dropped in training.
        target: "all" for every linear layer but the output layer, or names of layers.
        rslora: Multiply the update by alpha / sqrt(rank) instead.
        dora: Learn the length of every output's weights apart from their direction (DoRA).
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target: str | tuple[str, ...] = "all"
    rslora: bool = False
    dora: bool = False
