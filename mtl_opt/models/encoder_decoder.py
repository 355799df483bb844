"""Encoder–decoder models such as T5 and BART: the prompt goes to the encoder, the answer is learnt by the decoder."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.errors import InputError

logger = logging.getLogger(__name__)

KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""What the settings of generation keep: tokens of the model, not habits of the task that it was trained for."""

OTHER = ("_", "transformers", "output_", "use_cache", "return_dict")
"""Beginnings of settings that change no answer."""


def is_encoder_decoder(model: Any) -> bool:
    """Return whether a model reads prompts by an encoder and writes answers by a decoder.

    Args:
        model: A model of transformers, bare, adapted or with heads.

    Returns:
        Whether it does.
    """
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def check_answers(labels: Sequence[int]) -> str | None:
    """Say why a row is not one prompt and one answer.

    Args:
        labels: Of the row, not shifted; `IGNORE_INDEX` where nothing is learnt.

    Returns:
        A clause; None where it is.
    """
    learnt = [label != IGNORE_INDEX for label in labels]
    begins = sum(now and not before for before, now in zip([False, *learnt], learnt, strict=False))
    if learnt and learnt[0]:
        return "has no prompt for the encoder to read"
    return f"has {begins} answers, of which a decoder writes only one" if begins > 1 else None


def answer_inputs(model: Any, batch: TaskBatch) -> tuple[dict[str, Tensor], Tensor]:  # -> inputs, [batch, answer]
    """Divide rows into prompts for the encoder and answers for the decoder; raise for rows that are no such pair."""
    if batch.position_ids is not None:
        raise ValueError("An encoder–decoder model reads whole rows, and those of this batch are packed.")
    learnt = batch.labels != IGNORE_INDEX
    for row in batch.labels.tolist() if batch.labels.device.type == "cpu" else ():  # no look at an accelerator
        why = check_answers(row)
        if why is not None:
            raise ValueError(f"A row {why}.")
    places = torch.arange(learnt.shape[1], device=learnt.device)
    begins = torch.where(learnt.any(1), learnt.int().argmax(1), batch.attention_mask.sum(1))[:, None]
    width = max(1, int(begins.max()))
    mask = ((places < begins) & (batch.attention_mask > 0))[:, :width].to(batch.attention_mask)
    order = (~learnt).to(torch.int8).argsort(dim=1, stable=True)  # the answer first
    labels = batch.labels.gather(1, order)[:, : max(1, int(learnt.sum(1).max()))]
    inputs = {
        "input_ids": batch.input_ids[:, :width].masked_fill(mask == 0, _pad(model)),
        "attention_mask": mask,
        "decoder_input_ids": shifted(model, labels),
    }
    return inputs, labels


def shifted(model: Any, labels: Tensor) -> Tensor:  # [batch, answer] -> [batch, answer]
    """Put the token that begins every answer before it, and leave the last one out: what the decoder reads."""
    begin = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
    return torch.cat([begin, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE_INDEX, _pad(model))], 1)


def decoder_inputs(model: Any, tokens: Tensor) -> dict[str, Tensor]:  # [rows, seq]
    """Return what a model needs beside tokens to give logits for them.

    Args:
        model: Any model.
        tokens: What it reads. `[rows, seq]`

    Returns:
        For an encoder–decoder model the same tokens for the decoder; else nothing.
    """
    return {"decoder_input_ids": shifted(model, tokens)} if is_encoder_decoder(model) else {}


def _pad(model: Any) -> int:
    """Return the id that fills rows up."""
    return int(model.config.pad_token_id or 0)


def prepare_generation(model: Any, source: str) -> None:
    """Make a model answer as it is trained, without the beams and lengths of the task that it was made for."""
    if getattr(model.config, "decoder_start_token_id", None) is None:
        raise InputError(
            f"`model_name_or_path`: `{source}` names no `decoder_start_token_id`, which begins its answers."
        )
    given = model.generation_config.to_diff_dict()
    dropped = sorted(key for key in given if key not in KEPT and not key.startswith(OTHER))
    tokens = {key: getattr(model.generation_config, key, None) or getattr(model.config, key, None) for key in KEPT}
    tokens["decoder_start_token_id"] = model.config.decoder_start_token_id
    model.generation_config = GenerationConfig(**tokens)
    if dropped:
        logger.info("`%s`: its own settings of generation (%s) are left out.", source, ", ".join(dropped))
