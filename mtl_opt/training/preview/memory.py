"""Formulas for the memory of training: exact but for activations and logits, in bytes per process.

The libraries themselves and the data are not counted.
"""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from torch import nn

from mtl_opt.models import QuantizationSettings
from mtl_opt.training.optimizers import STATE_BYTES

BLOCK = 64
"""4-bit numbers that share a scale in bitsandbytes; quantised scales share one in blocks of 256."""


@dataclass(frozen=True)
class Memory:
    """The bytes of one process, by use.

    Attributes:
        weights: All weights of the model, as they are stored.
        gradient_rows: The rows of the task gradients and of their window, wherever they are kept; of engine two_pass
            a piece at a time.
        combined_gradient: What the optimizer gets, and of engine per_task one more gradient on the way to its row.
        optimizer: State of the optimizer.
        activations: Estimate: what the forward keeps for the backward.
        logits: Estimate: outputs over the vocabulary, and their gradients.
    """

    weights: int
    gradient_rows: int
    combined_gradient: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The sum over all uses."""
        return sum(asdict(self).values())


def row_bytes(num_rows: int, num_params: int, bytes_per_number: int = 4) -> int:
    """Compute the size of a buffer of task gradients."""
    return num_rows * num_params * bytes_per_number


def optimizer_bytes(optim: str, sizes: list[int]) -> int:
    """Compute the size of the optimizer state for parameters of these sizes."""
    exact = 4 if STATE_BYTES[optim] <= 2 and "8bit" in optim else 1
    return int(sum(n * STATE_BYTES[optim] * (exact if n < 4096 else 1) for n in sizes))


def quantized_bytes(numbers: int, outputs: int, settings: QuantizationSettings) -> int:
    """Compute the size of a weight quantised by bitsandbytes, scales included."""
    if settings.bit == 8:
        return numbers + 4 * outputs
    blocks = ceil(numbers / BLOCK)
    scales = blocks + 4 * ceil(blocks / 256) + 4 * 256 if settings.double else 4 * blocks
    return numbers // 2 + scales + 4 * 16


def weight_bytes(model: nn.Module, quantized: dict[int, tuple[int, int]], settings: QuantizationSettings | None) -> int:
    """Compute the size of all weights and buffers of a model."""
    total = 0
    for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values():
        if id(tensor) in quantized and settings is not None:
            total += quantized_bytes(*quantized[id(tensor)], settings)
        else:
            total += tensor.numel() * tensor.element_size()
    return total


def quantized_weights(model: nn.Module) -> dict[int, tuple[int, int]]:
    """Map the ids of the quantised weights of a loaded model to their numbers and outputs."""
    found = {}
    for module in model.modules():
        if isinstance(module, nn.Linear) and type(module.weight).__name__ in {"Params4bit", "Int8Params"}:
            found[id(module.weight)] = (module.in_features * module.out_features, module.out_features)
    return found


@dataclass(frozen=True)
class TransformerShape:
    """The dimensions of a transformer that determine its activations.

    Attributes:
        layers: Number of layers.
        hidden: Width.
        intermediate: Width of the feed-forward part.
        heads: Number of attention heads.
        vocabulary: Number of outputs.
        dropped: Inputs of all adapted layers of one layer together, where adapters drop inputs; else 0.
        eager: Whether attention keeps the weights of all pairs of tokens.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    dropped: int
    eager: bool


def shape_of(model: Any) -> TransformerShape | None:
    """Read the dimensions of a transformer; None where its configuration does not name them."""
    config = model.config.get_text_config()
    hidden, layers = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
    if not isinstance(hidden, int) or not isinstance(layers, int):
        return None
    adapted = [m for m in model.modules() if hasattr(m, "lora_dropout") and hasattr(m, "in_features")]
    dropping = [m for m in adapted if any(getattr(d, "p", 0) > 0 for d in m.lora_dropout.values())]
    return TransformerShape(
        layers=layers,
        hidden=hidden,
        intermediate=getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden,
        heads=getattr(config, "num_attention_heads", None) or 1,
        vocabulary=getattr(model, "num_outputs", model.get_input_embeddings().num_embeddings),
        dropped=sum(m.in_features for m in dropping) // max(1, layers),
        eager=getattr(config, "_attn_implementation", None) == "eager",
    )


def activation_bytes(
    shape: TransformerShape, tokens: int, seq: int, *, half: bool, checkpointed: bool = False, logits: int = 0
) -> int:
    """Estimate what the forward keeps for the backward, as counted for a Llama with adapters on all linear layers."""
    size = 2 if half else 4
    # Per token and layer. Hidden: inputs and outputs of two norms (4), queries, keys and values of all heads (3), the
    # output of attention in two layouts (2), one more for what is in use. Intermediate: gate, its activation, up and
    # their product. Dropout on adapters keeps each input once more, with its mask.
    per_token = size * (10 * shape.hidden + 4 * shape.intermediate + 2 * shape.dropped)
    # Under bfloat16 the norms work on float32 copies: 2 hidden of 4 bytes.
    per_token += 8 * shape.hidden if half else 0
    # Eager attention keeps its weights twice.
    per_token += 2 * size * shape.heads * seq if shape.eager else 0
    # Checkpointing keeps the input of every layer, and all of the above for the one layer that is computed again, by
    # when the logits have been freed.
    if checkpointed:
        return tokens * size * shape.hidden * shape.layers + max(0, tokens * per_token - logits)
    return tokens * per_token * shape.layers


def logit_bytes(vocabulary: int, tokens: int, learnt: int, *, half: bool) -> int:
    """Estimate all logits and their gradient, and three float32 copies of the learnt ones."""
    return vocabulary * (2 * (2 if half else 4) * tokens + 3 * 4 * learnt)
