"""Small encoders and decoders with a head of every type, and batches of their tasks."""

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.models import LoraSettings, MultiTaskModel, put_heads
from mtl_opt.models.lora import with_adapters

VOCAB = 61
SPECS: dict[str, Any] = {
    "情感": {"type": "classification", "labels": ["差", "好", "一般"], "pooling": "mean", "dropout": 0.0},
    "score": {"type": "regression", "pooling": "last"},
    "items": {"type": "token_classification", "labels": ["O", "B"], "dropout": 0.0, "hidden": 8},
    "topic": {"type": "classification", "labels": ["a", "b"], "dropout": 0.0, "hidden": 8},
}
"""Tasks whose heads label rows or words; `items` is also the name of a method of ModuleDict."""
TEXT: dict[str, Any] = {"qa": {"type": "lm", "rank": 2}, "plain": None}
"""Tasks that answer in text, with a private output adapter and without."""


def encoder() -> BertModel:
    """Build a BERT of two layers without dropout."""
    config = BertConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False)


def decoder() -> LlamaForCausalLM:
    """Build a Llama of two layers."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def with_heads(kind: str, lora: bool = True, specs: dict[str, Any] | None = None) -> MultiTaskModel:
    """Put heads on a small model; nothing that is trained is zero, so that no gradient is."""
    base: Any = encoder() if kind == "encoder" else decoder()
    backbone = with_adapters(base, LoraSettings(rank=4, alpha=8)) if lora else base
    if specs is None:
        specs = SPECS if kind == "encoder" else SPECS | TEXT
    model = put_heads(backbone, specs, "tiny")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or name.startswith("heads.")):
                parameter.normal_(std=0.2)
    return model


def batch_of(model: MultiTaskModel, ids: list[int], seq: int = 9) -> TaskBatch:
    """Draw rows of different lengths with what each task's head should give; every third row lacks its label."""
    tokens = torch.randint(1, VOCAB, (len(ids), seq))
    lengths = torch.randint(4, seq + 1, (len(ids), 1))
    position = torch.arange(seq)
    mask = (position < lengths).long()
    labels, targets = torch.full_like(tokens, IGNORE_INDEX), torch.full((len(ids),), torch.nan)
    for row, task in enumerate(ids):
        head: Any = model.heads[task]
        if head.reads == "row" and row % 3 != 2:
            targets[row] = float(torch.randint(0, 2, ())) if head.needs_labels else float(torch.randn(()))
        elif head.reads == "words":
            labels[row, 1:3] = torch.randint(0, 2, (2,))
        elif head.reads == "text":
            labels[row] = torch.where((position >= 2) & mask[row].bool(), tokens[row], IGNORE_INDEX)
    return TaskBatch(tokens * mask, mask, labels, torch.tensor(ids), targets=targets)


def rows_of(batch: TaskBatch, chosen: Tensor) -> TaskBatch:
    """Take some rows of a batch."""
    assert batch.targets is not None
    parts = (batch.input_ids, batch.attention_mask, batch.labels, batch.task_ids)
    return TaskBatch(*(part[chosen] for part in parts), targets=batch.targets[chosen])
