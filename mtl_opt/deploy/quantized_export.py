"""A merged model quantised by bitsandbytes, and how far its outputs are from those of the run."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.deploy.trained_run import TrainedRun
from mtl_opt.errors import InputError
from mtl_opt.models import MultiTaskModel, QuantizationSettings, decoder_inputs, load_base
from mtl_opt.training.setup.data import prepare

logger = logging.getLogger(__name__)

MOST_TOKENS = 512
"""Most tokens per task that are compared: their logits are kept."""

OWN_TOKENS = (tuple(range(3, 35)),)
"""Token ids that are compared where the run's held-out rows cannot be read any more."""


@dataclass(frozen=True)
class Difference:
    """How far the outputs of an export are from those of the run.

    Attributes:
        rows: Rows that were compared.
        tokens: Their tokens.
        held_out: Whether these are held-out rows of the run.
        largest: Largest output of the run, by amount.
        max_difference: Largest difference, by amount.
        same_choice: Share of positions (rows, for a head) with the same largest output; None for a single output.
    """

    rows: int
    tokens: int
    held_out: bool
    largest: float
    max_difference: float
    same_choice: float | None

    def sentence(self, task: str, bits: int) -> str:
        """Say it in one line."""
        what = "held-out rows" if self.held_out else "rows of numbers (the held-out rows cannot be read)"
        same = "" if self.same_choice is None else f", and the largest is the same in {100 * self.same_choice:.1f} %"
        return (
            f"Task {task} in {bits} bits: outputs, up to {self.largest:.3g}, differ by up to {self.max_difference:.3g}"
            f"{same} ({self.rows} {what}, {self.tokens} tokens)."
        )


class KeptOutputs:
    """Keep the outputs of a run for a task, to compare a quantised model with them.

    Args:
        whole: The model of the run, in float32.
        task: Index of the task.
        rows: Token ids of the rows to compare on; None for some of our own.
    """

    def __init__(self, whole: Any, task: int, rows: Sequence[Sequence[int]] | None) -> None:
        self.held_out, self.rows = rows is not None, rows or OWN_TOKENS
        self.head = None
        if isinstance(whole, MultiTaskModel) and whole.head_at(task).reads != "text":
            self.name, self.head = whole.tasks[task], whole.head_at(task)
        self.outputs = [_outputs(whole, row, task, self.head is not None) for row in self.rows]

    def difference(self, model: Any) -> Difference:
        """Compare a quantised model with the run."""
        if self.head is not None:
            model = MultiTaskModel(model, {self.name: self.head.to(next(model.parameters()).device)})
        found = [_outputs(model.eval(), row, 0, self.head is not None) for row in self.rows]
        pairs = list(zip(self.outputs, found, strict=True))
        same = torch.cat([(a.argmax(-1) == b.argmax(-1)).flatten().float() for a, b in pairs])
        return Difference(
            rows=len(self.rows),
            tokens=sum(map(len, self.rows)),
            held_out=self.held_out,
            largest=max(float(a.abs().max()) for a in self.outputs),
            max_difference=max(float((a - b).abs().max()) for a, b in pairs),
            same_choice=float(same.mean()) if self.outputs[0].shape[-1] > 1 else None,
        )


@torch.no_grad()
def _outputs(model: Any, row: Sequence[int], task: int, by_head: bool) -> Tensor:  # -> [..., outputs]
    """Compute the outputs of one row: logits of every position, or what the task's head gives."""
    device = next(model.parameters()).device
    tokens = torch.tensor([row], device=device) % _vocabulary(model)
    ids, mask = torch.tensor([task], device=device), torch.ones_like(tokens)
    with task_rows(ids):
        if by_head:
            return model.outputs(TaskBatch(tokens, mask, tokens, ids))[0].values.float().cpu()
        if isinstance(model, MultiTaskModel):
            with model.own_outputs():
                return model.backbone(input_ids=tokens, attention_mask=mask).logits.float().cpu()
        more = decoder_inputs(model, tokens)
        return model(input_ids=tokens, attention_mask=mask, **more).logits.float().cpu()


def _vocabulary(model: Any) -> int:
    """Count the rows of the embedding."""
    base = model.base if isinstance(model, MultiTaskModel) else model
    return int(base.get_input_embeddings().num_embeddings)


def held_out_rows(trained: TrainedRun) -> dict[str, list[list[int]]]:
    """Read the first held-out rows of every task as training saw them; none where the data are gone."""
    try:
        prepared = prepare(trained.config).only(trained.config.only_tasks)
    except InputError as error:
        logger.info("The held-out rows of the run cannot be read: %s", error)
        return {}
    found: dict[str, list[list[int]]] = {}
    for task, encoded in prepared.eval_encoded.items():
        left = MOST_TOKENS
        for row in encoded:
            ids = list(map(int, row.input_ids))[:left]
            if not ids:
                break
            found.setdefault(task, []).append(ids)
            left -= len(ids)
    return found


def write_quantized(
    model: Any, trained: TrainedRun, bits: int, dtype: torch.dtype, folder: Path, shard_size: str
) -> Any:
    """Write a merged model in 4 or 8 bits, and return it as the folder gives it back."""
    full = folder / "unquantised"
    config = trained.config
    settings = QuantizationSettings(4 if bits == 4 else 8, double=config.double_quantization)
    if config.quantization_type == "fp4":
        settings = QuantizationSettings(settings.bit, "fp4", settings.double)
    shape: dict[str, Any] = {"dtype": dtype, "trust_remote_code": config.trust_remote_code}
    heads = trained.heads() is not None
    try:
        model.to(dtype).save_pretrained(full)
        load_base(str(full), quantization=settings, heads=heads, **shape).save_pretrained(
            folder, max_shard_size=shard_size
        )
    finally:
        shutil.rmtree(full, ignore_errors=True)
    return load_base(str(folder), heads=heads, **shape)
