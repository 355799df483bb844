"""How large the model and the batch of a benchmark are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Hold the sizes of a model and of a step's batch.

    Attributes:
        hidden: Width of the model.
        intermediate: Width of its feed-forward layers.
        layers: Number of layers.
        heads: Number of attention heads.
        vocabulary: Number of tokens.
        rows: Rows of a step, divided among the tasks.
        length: Tokens of a row.
        rank: Rank of the adapters.
        key_value_heads: Heads of keys and values; 0 for as many as `heads`.
        tied: Whether the output layer has the embedding's weights.
        autocast: Whether it is run in bf16, base weights in bf16, and needs a GPU.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    rows: int
    length: int
    rank: int = 8
    key_value_heads: int = 0
    tied: bool = False
    autocast: bool = False


SIZES = {
    "large": Size(hidden=512, intermediate=1376, layers=4, heads=8, vocabulary=2048, rows=16, length=128),
    "small": Size(hidden=256, intermediate=688, layers=4, heads=8, vocabulary=2048, rows=16, length=32),
    "tiny": Size(hidden=32, intermediate=64, layers=2, heads=2, vocabulary=64, rows=16, length=8),
    "gpu_0.5b": Size(
        hidden=896, intermediate=4864, layers=24, heads=14, vocabulary=151936, rows=16, length=512,
        rank=16, key_value_heads=2, tied=True, autocast=True,
    ),
    "gpu_1.5b": Size(
        hidden=1536, intermediate=8960, layers=28, heads=12, vocabulary=151936, rows=16, length=512,
        rank=16, key_value_heads=2, tied=True, autocast=True,
    ),
}  # fmt: skip
"""large: 2048 tokens a step; small: 512, about 60 ms on two cores, where overhead shows; tiny: for tests; gpu: shapes
of Qwen2.5."""
