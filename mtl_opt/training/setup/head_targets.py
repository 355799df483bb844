"""The labels and targets of heads, from the rows of their tasks."""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mtl_opt.data import (
    Entry,
    Row,
    Source,
    TargetView,
    TaskRows,
    TaskSettings,
    View,
    label_names,
    unseen_labels,
    with_targets,
)
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.evaluation import METRICS, split_name
from mtl_opt.models import head_options, reads
from mtl_opt.training.config.heads import answer_kinds, is_labelled

logger = logging.getLogger(__name__)


def labelled_entry(entry: Entry, heads: Mapping[str, Mapping[str, Any]]) -> Entry:
    """Allow numbers and missing labels as answers in an entry whose rows may belong to a head."""
    return replace(
        entry,
        train=labelled_source(entry.train, heads),
        eval=None if entry.eval is None else labelled_source(entry.eval, heads),
    )


def labelled_source(source: Source, heads: Mapping[str, Mapping[str, Any]]) -> Source:
    """Allow numbers and missing labels as answers in a source whose rows may belong to a head."""
    own = answer_kinds(heads)
    may = source.task in own if source.strict else bool(own)
    return replace(source, spec=replace(source.spec, labels=True)) if may else source


def attach_heads(
    rows: TaskRows, heads: Mapping[str, Mapping[str, Any]], skip_bad_rows: bool
) -> tuple[TaskRows, dict[str, dict[str, Any]]]:
    """Complete the labels of every head, and attach targets to the rows of its task."""
    for task in heads:
        if task not in rows.train:
            raise UnknownNameError("task under `heads`:", task, rows.train)
    full = {task: _with_labels(task, dict(head), rows) for task, head in heads.items()}
    train, tokens = dict(rows.train), dict(rows.train_tokens)
    held, held_tokens = dict(rows.eval), dict(rows.eval_tokens)
    codes, bad = dict(rows.labels), list(rows.bad)
    for task, kind in answer_kinds(heads).items():
        names = full[task].get("labels")
        options: dict[str, Any] = {"names": names, "words": kind == "words", "skip_bad_rows": skip_bad_rows}
        unseen = [] if names is None or "labels" in heads[task] else unseen_labels(held[task], names, kind == "words")
        train[task], tokens[task], wrong = with_targets(task, train[task], tokens[task], **options)
        held[task], measured, also = with_targets(task, held[task], held_tokens[task], **options, unseen=unseen)
        held_tokens[task] = measured
        bad += wrong + also
        _log_missed(task, tokens[task], measured, unseen)
        train[task], tokens[task] = _only_labelled(task, train[task], tokens[task])
        if names is not None and kind == "row":
            codes[task] = _codes(tokens[task])
    settings = {task: with_metrics(task, one, full.get(task)) for task, one in rows.settings.items()}
    return replace(
        rows, train=train, train_tokens=tokens, eval=held, eval_tokens=held_tokens, labels=codes, bad=bad,
        settings=settings,
    ), full  # fmt: skip


def with_metrics(task: str, settings: TaskSettings, head: Mapping[str, Any] | None) -> TaskSettings:
    """Fill in the default metrics of a task with a head, and refuse metrics that do not fit."""
    labelled = is_labelled(head)
    kind = "texts" if not labelled else "labels" if head is not None and "labels" in head else "numbers"
    fitting = {"texts": ("labels", "texts", "loss"), "labels": ("labels", "loss"), "numbers": ("numbers", "loss")}[kind]
    for name in settings.metrics:
        base = split_name(name, f"`metrics` of task `{task}`")[0]
        if METRICS[base].needs not in fitting and not (labelled and base == "exact_match" and kind == "labels"):
            raise InputError(f"`metrics` of task `{task}`: `{base}` does not fit a task that answers in {kind}.")
    if settings.metrics or not labelled:
        return settings
    return replace(settings, metrics=("accuracy", "f1_macro") if kind == "labels" else ("mse", "pearson"))


def _codes(tokens: TargetView) -> np.ndarray:  # [rows]
    """Number the labels of the rows for stratified batches; -1 for none."""
    return np.where(np.isnan(tokens.targets), -1, np.nan_to_num(tokens.targets)).astype(np.int32)


def _log_missed(task: str, train: TargetView, held: TargetView, unseen: list[str]) -> None:
    """Say which labels no answer can meet: those that no training row has, and those of words without a token."""
    if unseen:
        logger.warning(
            "Task %s: no training row has the label%s %s, and the held-out rows or words that have one count as "
            "misses; `heads.%s.labels` gives them a class.",
            task, "s" * (len(unseen) > 1), ", ".join(f"`{label}`" for label in unseen), task,
        )  # fmt: skip
    if train.words is None:
        return
    lost = [sum(len([one for one in row if one not in unseen]) for row in view.missed) for view in (train, held)]
    every = [view.num_answerable + sum(map(len, view.missed)) for view in (train, held)]
    if any(lost):
        logger.warning(
            "Task %s: %d of %d labelled training words lie beyond `cutoff_len` or have no token of their own and are "
            "not learnt; of the held-out words %d of %d, which count as misses.",
            task, lost[0], every[0], lost[1], every[1],
        )  # fmt: skip


def _only_labelled(task: str, rows: View[Row], tokens: TargetView) -> tuple[View[Row], TargetView]:
    """Drop the rows without a label, which would fill steps with nothing to learn."""
    known = np.flatnonzero(~np.isnan(tokens.targets))
    if not len(known):
        raise InputError(f"Task `{task}` has a head, and none of its training rows has a label.")
    if len(known) < len(tokens):
        missing = len(tokens) - len(known)
        logger.info("Task %s: %d training rows without a label are left out.", task, missing)
    return rows.pick(known), tokens.pick(known)


def _with_labels(task: str, head: dict[str, Any], rows: TaskRows) -> dict[str, Any]:
    """Collect the labels of a head from its training rows where the configuration names none."""
    if head_options(head["type"]).get("labels", None) is not inspect.Parameter.empty or "labels" in head:
        return head
    found = label_names(rows.train[task], reads(head["type"]) == "words")
    if len(found) < 2:
        raise InputError(
            f"`heads.{task}`: the training rows have fewer than two labels ({', '.join(found) or 'none'}); name them "
            "all in `labels`."
        )
    logger.info("Task %s: %d labels found: %s.", task, len(found), ", ".join(found))
    return {**head, "labels": found}
