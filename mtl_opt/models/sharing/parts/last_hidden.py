"""Finding the module that computes the last hidden state, by comparing outputs with the output layer's input."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mtl_opt.models.precision import evaluation_mode

ALIKE = 1e-4
"""Largest 1 - cosine of two states that count as one: rounding to another number format, or a factor."""


def representation(model: Any) -> tuple[nn.Module, int]:
    """Find what computes the last hidden state: an encoder itself, or what the output layer reads.

    A few tokens are read to see it: some models call a part of what they name their base, or transform its output.
    """
    base, config = getattr(model, "base_model", None), getattr(model, "config", None)
    output_of = getattr(model, "get_output_embeddings", None)
    output = output_of() if callable(output_of) else None
    if base is None or config is None or (base is model and output is not None):
        raise ValueError(
            f"{type(model).__name__} does not say which part of it computes the last hidden state, so its architecture "
            "is not supported."
        )
    dim = getattr(output, "in_features", None)
    if output is not None and output.weight.device.type != "meta":
        base = _read_by(model, base, output)
    return base, int(config.get_text_config().hidden_size if dim is None else dim)


def _read_by(model: Any, base: nn.Module, output: nn.Module) -> nn.Module:
    """Find the outermost module of the base whose output, given once, is the input of the output layer."""
    given: dict[int, list[Tensor]] = {}
    read: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, found: Any) -> None:  # noqa: ARG001 - the signature of a hook
        state = last_hidden(found)
        given.setdefault(id(module), []).extend([] if state is None else [state])

    with ExitStack() as stack:
        for module in base.modules():
            stack.enter_context(module.register_forward_hook(note))
        stack.enter_context(output.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])))
        _read_few_tokens(model)
    for module in base.modules():
        states = given.get(id(module), [])
        if len(states) == len(read) == 1 and _alike(states[0], read[0]):
            return module
    raise ValueError(
        f"The output layer of {type(model).__name__} reads something else than the last hidden state (a transform lies "
        "between them), so its architecture is not supported."
    )


@torch.no_grad()
def _read_few_tokens(model: Any) -> None:
    """Run the model on two rows of four tokens."""
    embedding = model.get_input_embeddings()
    tokens = torch.arange(8, device=embedding.weight.device).view(2, 4) % embedding.num_embeddings
    with evaluation_mode(model):
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))


def _alike(state: Tensor, read: Tensor) -> bool:
    """Return whether two tensors are equal up to a factor and rounding."""
    if state.shape != read.shape:
        return False
    a, b = state.float().flatten(), read.float().flatten()
    return float(a @ b) >= (1 - ALIKE) * float(a.norm() * b.norm())


def last_hidden(output: Any) -> Tensor | None:
    """Extract the hidden state from a module's output."""
    found = output[0] if isinstance(output, tuple) and output else getattr(output, "last_hidden_state", output)
    return found if isinstance(found, Tensor) else None
