"""Evaluation: every task on its held-out rows, by its own metrics, with the answers behind the numbers."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from mtl_opt.batch import task_rows
from mtl_opt.data import Encoder, collate, collate_prompts
from mtl_opt.errors import InputError
from mtl_opt.evaluation import from_loss, score, split_name
from mtl_opt.generation import answer_text, generated
from mtl_opt.models import MultiTaskModel, task_losses
from mtl_opt.results import ALL_RESULTS_JSON, CONFIG_YAML, PREDICTIONS_JSONL, read_results, write_text
from mtl_opt.training.config.heads import is_labelled
from mtl_opt.training.config.run_config import train_config
from mtl_opt.training.config.task_metrics import may_stop_early, metric_names, needs_answers
from mtl_opt.training.config.yaml_file import read_yaml
from mtl_opt.training.processes import bar_disabled
from mtl_opt.training.run.head_answers import answers_of_head
from mtl_opt.training.setup.data import Prepared, check_vocabulary, prepare
from mtl_opt.training.setup.model import build_model
from mtl_opt.training.setup.model_settings import EvaluationSettings, autocast, evaluation_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """The outcome of an evaluation.

    Attributes:
        metrics: `eval_{task}_loss` (nats per label token) and `eval_{task}_{metric}` of every task with held-out rows.
        predictions: One per held-out row of tasks whose metrics need answers: task, prompt, predict, label.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    predictions: list[dict[str, str]] = field(default_factory=list)


@torch.no_grad()
def measure(model: nn.Module, prepared: Prepared, how: EvaluationSettings) -> Measured:
    """Measure a model on the held-out rows of every task."""
    was_training = model.training
    model.eval()
    found = Measured()
    try:
        tasks = [task for task in prepared.tasks if prepared.eval_rows[task]]
        for task in tqdm(tasks, desc="evaluating", leave=False, disable=bar_disabled()):
            if isinstance(model, MultiTaskModel) and is_labelled(prepared.heads.get(task)):
                _measure_head(found, model, task, prepared, how)
                continue
            settings, references = prepared.settings[task], _references(task, prepared)
            loss = _loss(model, task, prepared, how)
            answers = _answers(model, task, prepared, how) if needs_answers(settings) else None
            values = {"loss": loss} | metric_values(metric_names(settings), answers, references, loss)
            found.metrics.update({f"eval_{task}_{name}": value for name, value in values.items()})
            if answers is not None:
                _note_constant(task, answers, references)
                prompts = _prompts(task, prepared)
                rows = zip(prompts, answers, references, strict=True)
                found.predictions.extend({"task": task, "prompt": p, "predict": a, "label": r} for p, a, r in rows)
    finally:
        model.train(was_training)
    return found


def _measure_head(
    found: Measured, model: MultiTaskModel, task: str, prepared: Prepared, how: EvaluationSettings
) -> None:
    """Measure a task answered by a head; skip it where no held-out row has a label."""
    answers, names = answers_of_head(model, task, prepared, how), metric_names(prepared.settings[task])
    if not answers.references:
        return
    loss = answers.loss / answers.count if answers.count else math.nan
    said, wanted = answers.predictions, answers.references
    _note_constant(task, [one for one in said if one != ""], wanted)
    values = {"loss": loss} | metric_values(names, said, wanted, loss)
    finite = {name: value for name, value in values.items() if not math.isnan(value)}  # a correlation may not exist
    found.metrics.update({f"eval_{task}_{name}": value for name, value in finite.items()})
    texts = prepared.eval_rows[task]
    rows = zip(answers.rows, said, wanted, strict=True)
    found.predictions.extend(
        {"task": task, "prompt": texts[i].user_text, "predict": str(p), "label": str(r)} for i, p, r in rows
    )


def _note_constant(task: str, said: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Note in the log where all answers are the same although the references differ."""
    answers, references = ({str(one).strip() for one in side} for side in (said, wanted))
    if len(said) > 1 and len(answers) == 1 and len(references) > 1:
        logger.warning(
            "Task %s: all %d held-out rows or words are answered %r, while the references have %d different answers.",
            task, len(said), answers.pop()[:80], len(references),
        )  # fmt: skip


def metric_values(
    names: Sequence[str], predictions: Sequence[Any] | None, references: Sequence[Any], loss: float
) -> dict[str, float]:
    """Compute the named metrics of one task, in their order."""
    bases = [split_name(name)[0] for name in names]
    values = from_loss(bases, loss) | ({} if predictions is None else score(names, predictions, references))
    return {name: values[name] for name in bases}


def write_predictions(folder: Path, predictions: Sequence[Mapping[str, str]]) -> None:
    """Write the answers behind the metrics into a run's folder."""
    if predictions:
        lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in predictions]
        write_text(folder / PREDICTIONS_JSONL, "".join(lines))


def _references(task: str, prepared: Prepared) -> list[str]:
    """Return what each answer is compared with."""
    if not needs_answers(prepared.settings[task]):
        return []
    encoder = prepared.encoders[task]
    return [encoder.reference(row) for row in prepared.eval_rows[task]]


def _prompts(task: str, prepared: Prepared) -> list[str]:
    """Decode the prompt of each held-out row with its special tokens, so that it can be fed back."""
    encoder = prepared.encoders[task]
    ids = (encoder.prompt(row) for row in prepared.eval_rows[task])
    return [encoder.tokenizer.decode(prompt, skip_special_tokens=False) for prompt in ids]


def _loss(model: nn.Module, task: str, prepared: Prepared, how: EvaluationSettings) -> float:
    """Compute the mean next-token loss over all label tokens of a task, in nats per token."""
    rows, tasks = prepared.eval_encoded[task], tasks_of(model, prepared)
    own = tasks.index(task)
    device = next(model.parameters()).device
    total = tokens = 0.0
    for chunk in _eval_batches(rows, how.batch_size):
        batch = collate([chunk], prepared.tokenizer.pad_token_id).to(device)
        batch = replace(batch, task_ids=torch.full_like(batch.task_ids, own))
        with task_rows(batch.task_ids), autocast(device, how.precision):
            losses, counts = task_losses(model, batch, len(tasks))
        total += float(losses[own]) * float(counts[own])
        tokens += float(counts[own])
    return total / tokens


def _answers(model: nn.Module, task: str, prepared: Prepared, how: EvaluationSettings) -> list[str]:
    """Generate an answer to each row by greedy decoding."""
    rows, encoded, encoder = prepared.eval_rows[task], prepared.eval_encoded[task], prepared.encoders[task]
    device, frame = next(model.parameters()).device, encoder.frame
    length = how.max_new_tokens
    if may_stop_early(prepared.settings[task]):
        length = min(length, max(sum(label >= 0 for label in row.labels) for row in encoded))
    answers = []
    for chunk in _eval_batches(rows, how.batch_size):
        prompts = [encoder.prompt(row) for row in chunk]
        input_ids, mask = collate_prompts(prompts, prepared.tokenizer.pad_token_id)
        ids = torch.full((len(chunk),), tasks_of(model, prepared).index(task), device=device)
        with task_rows(ids), autocast(device, how.precision):
            found = _greedy_ids(model, input_ids.to(device), mask.to(device), encoder, length).tolist()
        answers += [frame.answer(answer_text(ids, encoder.tokenizer, frame.stop, frame.ends)) for ids in found]
    return answers


def tasks_of(model: nn.Module, prepared: Prepared) -> Sequence[str]:
    """Return the tasks in the order of the model's task ids, which may be more than those measured."""
    return getattr(model, "tasks", prepared.tasks)


def _greedy_ids(model: Any, input_ids: torch.Tensor, mask: torch.Tensor, encoder: Encoder, length: int) -> torch.Tensor:
    """Decode answers greedily, whatever sampling the model's own generation settings ask for."""
    return generated(
        model,
        input_ids,
        mask,
        max_new_tokens=length,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=encoder.tokenizer.pad_token_id,
        eos_token_id=list(encoder.frame.ends) or None,
    )


def _eval_batches(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield consecutive batches of rows."""
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]


def evaluate_folder(folder: Path) -> dict[str, float]:
    """Measure a finished run from its files alone."""
    if read_results(folder) is None:
        raise InputError(f"`{folder}` holds no finished run ({ALL_RESULTS_JSON} is missing).")
    config = train_config(read_yaml(folder / CONFIG_YAML, []))
    prepared = prepare(config).only(config.only_tasks)
    model = build_model(config, prepared.tasks, prepared.settings, folder, prepared.head_specs).to(
        torch.accelerator.current_accelerator() or torch.device("cpu")
    )
    check_vocabulary(prepared, model.get_input_embeddings().num_embeddings)
    return measure(model, prepared, evaluation_settings(config)).metrics
