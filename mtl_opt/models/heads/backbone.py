"""A backbone and its heads: which architectures can carry which heads, and putting them on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from mtl_opt.errors import InputError
from mtl_opt.models.heads.base import Head
from mtl_opt.models.heads.files import load_heads
from mtl_opt.models.heads.model import MultiTaskModel
from mtl_opt.models.heads.registry import build_head, reads

Specs = Mapping[str, Mapping[str, Any] | None]
"""Per task `type` and options of its head; None for a task without a head of its own."""


def is_encoder(config: Any) -> bool:
    """Return whether a model of transformers attends in both directions."""
    stacks = getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False)
    return not stacks and getattr(config, "model_type", None) in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def kind_of_model(config: Any, source: str) -> str:
    """Classify an architecture as "encoder" or "decoder"; raise if it is neither."""
    kind = getattr(config, "model_type", None)
    remote = getattr(config, "auto_map", None) or {}
    if not getattr(config, "is_encoder_decoder", False):
        if is_encoder(config):
            return "encoder"
        if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in remote:
            return "decoder"
        if "AutoModel" in remote:
            return "encoder"
    raise InputError(
        f"`heads`: `{source}` is of architecture `{kind}`, which is neither an encoder of text nor a causal language "
        "model; heads need one of the two."
    )


def kind_of_text_model(config: Any, source: str) -> str:
    """Classify a model that answers in text as "decoder" or "encoder_decoder"; raise for any other."""
    kind, where = getattr(config, "model_type", None), f"`model_name_or_path`: `{source}`"
    if is_encoder(config):
        raise InputError(
            f"{where} is an encoder, which sees the answer it should learn to write; give every task a head (`heads`), "
            "or take a causal language model."
        )
    other = [part for part in ("vision", "audio") if getattr(config, f"{part}_config", None) is not None]
    if other:
        raise InputError(
            f"{where} is of architecture `{kind}`, which reads {other[0]} beside text, and only text is trained here; "
            "take a model of text alone."
        )
    if getattr(config, "is_encoder_decoder", False):
        if kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            return "encoder_decoder"
    elif kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in (
        getattr(config, "auto_map", None) or {}
    ):
        return "decoder"
    raise InputError(
        f"{where} is of architecture `{kind}`, which is no model from text to text; take a causal language model, or "
        "one of encoder and decoder such as T5."
    )


def complete_specs(specs: Specs, kind: str, source: str) -> dict[str, dict[str, Any]]:
    """Complete head specifications for a kind of model; raise for heads that it cannot carry."""
    found = {}
    for task, spec in specs.items():
        full: dict[str, Any] = {"type": "lm", "rank": 0} if spec is None else dict(spec)
        if kind == "encoder" and spec is None:
            raise InputError(f"`heads`: task `{task}` has no head, and the encoder `{source}` cannot answer in text.")
        if kind == "encoder" and reads(full["type"]) == "text":
            raise InputError(f"`heads.{task}`: type `lm` needs a causal language model; `{source}` is an encoder.")
        if kind == "decoder" and full.get("pooling") == "cls":
            raise InputError(
                f"`heads.{task}.pooling: cls` takes the first token, which in the causal model `{source}` has seen "
                "nothing else; use last or mean."
            )
        found[task] = full
    return found


def auto_class(kind: str) -> Any:
    """Return the class of transformers that loads this kind of model."""
    classes = {"encoder": AutoModel, "encoder_decoder": AutoModelForSeq2SeqLM, "decoder": AutoModelForCausalLM}
    return classes[kind]


def without_pooler(model: Any) -> Any:
    """Remove the pooler of an encoder."""
    # Heads pool by themselves, so adapters on it would never get a gradient.
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None
    return model


def put_heads(backbone: Any, specs: Specs, source: str, trained: str | Path | None = None) -> MultiTaskModel:
    """Attach a head per task to a backbone.

    Args:
        backbone: A model of transformers, a peft model around one, or one with a way of sharing in it.
        specs: Per task `type` and options of its head; None for a task that the model's own output layer answers.
        source: Name of the model, for errors.
        trained: Folder with heads saved before.

    Returns:
        The model.

    Raises:
        InputError: If an option does not fit, or the saved heads are for something else.
    """
    base = backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
    dim = base.config.get_text_config().hidden_size
    vocabulary = base.get_input_embeddings().num_embeddings
    kind = "encoder" if base.get_output_embeddings() is None else "decoder"
    heads = {}
    for task, spec in complete_specs(specs, kind, source).items():
        try:
            heads[task] = build_head(spec, dim, vocabulary)
        except InputError as error:
            raise InputError(f"`heads.{task}`: {error}") from error
    model = MultiTaskModel(backbone, heads)
    _freeze_unused_output(base, heads.values())
    if trained is not None:
        load_heads(model.heads.by_task(), Path(trained))
    model.heads.to(next(backbone.parameters()).device)  # a quantised base was put where it is trained
    return model


def _freeze_unused_output(base: Any, heads: Iterable[Head]) -> None:
    """Keep weight decay away from an output layer that no head asks, unless it is the embedding itself."""
    output = base.get_output_embeddings()
    asked = any(head.reads == "text" for head in heads)
    if output is not None and not asked and output.weight is not base.get_input_embeddings().weight:
        output.requires_grad_(False)
