"""The data of a run: tokenizer and tokenised rows of every task."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_opt.data import (
    Encoder,
    Entry,
    Opener,
    Overlap,
    Row,
    RowPacing,
    RowSpec,
    Source,
    SplitRules,
    StreamRows,
    TaskRows,
    TaskSettings,
    TokenView,
    View,
    check_tokenizer,
    clusters,
    default_root,
    get_template,
    held_out_sources,
    hold_out,
    load_rows,
    load_streams,
    marks_of,
    overlaps,
    registry_entries,
    split_row_pacing,
    task_entries,
)
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.models import check_answers, is_encoder_decoder, load_tokenizer
from mtl_opt.training.config.heads import answer_kinds, is_labelled
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.config.task_metrics import check_measuring
from mtl_opt.training.setup.head_targets import attach_heads, labelled_entry, labelled_source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The data of a run, reusable by all runs with the same model, rows and template.

    Attributes:
        tokenizer: The model's tokenizer, with a pad token.
        encoders: Tokenises the rows of each task.
        settings: The configured settings of each task.
        train: Tokenised training rows by task: a `TokenView`, or `StreamRows` of a stream.
        train_rows: The same rows, as text.
        labels: Label of each training row by task, as a number.
        eval_rows: Held-out rows by task, as text.
        eval_encoded: The same rows, tokenised.
        heads: Type and options of the head of every task that has one, with its labels.
        overlap: What held-out rows share with training rows, by task; empty for streams.
        columns: Formats of the training rows of every task, and columns of which nothing was read; empty for streams.
        untrained: Evaluation before training by task, filled by the first run that measures it.
    """

    tokenizer: Any
    encoders: dict[str, Encoder]
    settings: dict[str, TaskSettings]
    train: Mapping[str, Any]
    train_rows: dict[str, View[Row]]
    labels: dict[str, Any]
    eval_rows: dict[str, View[Row]]
    eval_encoded: dict[str, TokenView]
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    overlap: dict[str, Overlap] = field(default_factory=dict)
    columns: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def head_specs(self) -> dict[str, Any] | None:
        """The head of every task, None for a task without one; None where no task has one."""
        return {task: self.heads.get(task) for task in self.train} if self.heads else None

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in order."""
        return list(self.train)

    @property
    def sizes(self) -> dict[str, int | None]:
        """Number of training rows of every task; None for a stream."""
        return {task: None if isinstance(rows, StreamRows) else len(rows) for task, rows in self.train.items()}

    def only(self, tasks: list[str] | None) -> "Prepared":
        """Restrict training to some of the tasks."""
        if tasks is None:
            return self
        for task in tasks:
            if task not in self.train:
                raise UnknownNameError("task in `only_tasks`", task, self.train)
        kept = {name: rows for name, rows in self.train.items() if name in tasks}
        return replace(self, train=kept)

    def held_out_of_training(self, size: float, by_group: bool) -> "Prepared":
        """Hold rows out of the training rows instead of the separate held-out rows, which are dropped."""
        parts = {
            task: hold_out(task, np.arange(len(rows)), size, clusters(marks_of(rows)) if by_group else None)
            for task, rows in self.train_rows.items()
        }
        found = replace(
            self,
            train={task: self.train[task].pick(kept) for task, (kept, _) in parts.items()},
            train_rows={task: self.train_rows[task].pick(kept) for task, (kept, _) in parts.items()},
            labels={task: self.labels[task][kept] for task, (kept, _) in parts.items()},
            eval_rows={task: self.train_rows[task].pick(held) for task, (_, held) in parts.items()},
            eval_encoded={task: self.train[task].pick(held) for task, (_, held) in parts.items()},
            untrained={},
        )
        sides = ({task: marks_of(rows) for task, rows in side.items()} for side in (found.train_rows, found.eval_rows))
        return replace(found, overlap=overlaps(*sides))


def prepare(config: TrainConfig) -> Prepared:
    """Read and tokenise the configured data; log what was shortened and left out."""
    entries, held_out = entries_of(config)
    tokenizer = load_tokenizer(config.model_name_or_path, trust_remote_code=config.trust_remote_code)
    for note in check_tokenizer(tokenizer):
        logger.info(note)
    opener = opener_of(config, tokenizer)
    rules = SplitRules(config.val_size, config.val_split_by is not None, config.deduplicate, config.max_eval_samples)
    if config.streaming:
        seed = config.seed if config.data_seed is None else config.data_seed
        rows = load_streams(entries, opener, rules, held_out, config.buffer_size, seed)
    else:
        rows = load_rows(entries, opener, rules, held_out, complete=config.train_file is not None)
    rows, heads = attach_heads(rows, config.heads, config.skip_bad_rows)
    encoders = {task: opener.encoder_of(settings, task) for task, settings in rows.settings.items()}
    for task, settings in rows.settings.items():
        check_measuring(task, settings, rows.eval[task])
    log_rows(rows, config)
    prepared = Prepared(
        tokenizer, encoders, rows.settings, rows.train_tokens, rows.train, rows.labels, rows.eval, rows.eval_tokens,
        heads, rows.overlap, rows.columns,
    )  # fmt: skip
    if config.val_from_train is None:
        return prepared
    prepared = prepared.held_out_of_training(config.val_from_train, config.val_split_by is not None)
    for task, settings in rows.settings.items():
        check_measuring(task, settings, prepared.eval_rows[task])
        for sentence in overlap_sentences(task, prepared.overlap[task], len(prepared.eval_rows[task])):
            logger.warning("`val_from_train`: %s", sentence)
    return prepared


def opener_of(config: TrainConfig, tokenizer: Any) -> Opener:
    """Build what opens and tokenises sources."""
    encoder = Encoder(
        tokenizer,
        get_template(config.template).thinking_as(config.enable_thinking),
        config.cutoff_len,
        prefix=config.task_prefix or "",
        mask_history=config.mask_history,
        learn_prompt=config.train_on_prompt,
        allow_cutting=config.truncation == "cut",
        blocks=config.text_blocks,
        heads=answer_kinds(config.heads),
    )
    own = config.tokenized_path
    root = default_root() if own is None else Path(own)
    return Opener(encoder, config.skip_bad_rows, root, config.overwrite_cache, keep_small=own is not None)


def entries_of(config: TrainConfig) -> tuple[list[Entry], list[Source]]:
    """Collect the sources of training rows, and of separate held-out rows."""
    held_out: list[Source] = []
    if config.train_file is not None:
        entries = [Entry(Source(path, spec=RowSpec(), needs_task=True)) for path in config.train_file]
        held_out = [Source(path, needs_task=True) for path in config.eval_file or []]
    elif config.dataset is not None:
        entries = registry_entries(config.dataset_dir, config.dataset)
        trained = {name: str(entry.train.task) for name, entry in zip(config.dataset, entries, strict=True)}
        held_out, notes = held_out_sources(config.dataset_dir, config.eval_dataset or [], trained)
        for note in notes:
            logger.info(note)
    else:
        entries = task_entries(config.tasks or {})
    entries = [labelled_entry(entry, config.heads) for entry in entries]
    held_out = [labelled_source(source, config.heads) for source in held_out]
    pacing, _ = split_row_pacing(config.mixing_args)
    entries = [replace(entry, train=with_difficulty(entry.train, pacing)) for entry in entries]
    return [replace(entry, train=limit_rows(entry.train, config.max_samples)) for entry in entries], held_out


def with_difficulty(source: Source, pacing: RowPacing | None) -> Source:
    """Read the difficulty of the rows of a source, where a curriculum of rows wants it."""
    column = None if pacing is None else pacing.column
    return source if column is None else replace(source, spec=replace(source.spec, difficulty=column))


def limit_rows(source: Source, max_samples: int | None) -> Source:
    """Limit the rows taken of a source."""
    numbers = [number for number in (source.num_rows, max_samples) if number is not None]
    return replace(source, num_rows=min(numbers)) if numbers else source


def log_rows(rows: TaskRows, config: TrainConfig) -> None:
    """Log the number of rows per task, what was shortened and left out, and what stands on both sides."""
    for sentence in rows.bad:
        logger.warning("Left out: %s", sentence)
    if rows.bad:
        logger.warning("%d bad rows were left out (`skip_bad_rows`).", len(rows.bad))
    for note in rows.notes:
        logger.info(note)
    for warning in rows.warnings:
        logger.warning(warning)
    for task, tokens in rows.train_tokens.items():
        held = len(rows.eval[task])
        if isinstance(tokens, StreamRows):
            unknown = "; whether those are trained on too is not known of a stream" * bool(held)
            logger.info("Task %s: a stream to train on, %d rows held out%s.", task, held, unknown)
            continue
        shortened, cut = tokens.num_shortened, tokens.num_answers_cut
        also = f", {shortened} shortened to cutoff_len {config.cutoff_len}" if shortened else ""
        also += f" ({cut} of them with part of an answer cut)" if cut else ""
        overlap = rows.overlap[task]
        also += f", {overlap.duplicates} of them duplicates" if overlap.duplicates else ""
        also += "" if config.deduplicate is None else f", {overlap.dropped} left out by `deduplicate`"
        found = f", {overlap.shared} of them training rows too" if held else ""
        logger.info("Task %s: %d rows to train on%s; %d held out%s.", task, len(tokens), also, held, found)
        for sentence in overlap_sentences(task, overlap, held):
            logger.warning(sentence)
        if config.enable_thinking is None and any(row.reasoning for row in rows.train[task][:100]):
            logger.info(
                "Task %s: rows hold reasoning; `generate` and exports ask for it with `enable_thinking: true`.", task
            )


def overlap_sentences(task: str, overlap: Overlap, held: int) -> list[str]:
    """Say what held-out rows of a task share with training rows."""
    of = f"of its {held} held-out rows"
    found = []
    if overlap.shared:
        found.append(
            f"Task {task}: {overlap.shared} {of} are training rows too, question and answer, and measure memory; "
            "`deduplicate: exact` leaves them out of training."
        )
    if overlap.asked:
        found.append(f"Task {task}: {overlap.asked} {of} ask what a training row asks, with another answer.")
    for other, count in overlap.elsewhere.items():
        found.append(f"Task {task}: {count} {of} are training rows of task {other}.")
    return found


def check_vocabulary(prepared: Prepared, vocabulary: int) -> None:
    """Refuse a tokenizer with ids outside the embedding of the model."""
    tables = (*prepared.train.values(), *prepared.eval_encoded.values())
    largest = max(prepared.tokenizer.pad_token_id, *(rows.largest_id for rows in tables))
    if largest >= vocabulary:
        raise InputError(f"The tokenizer gives token id {largest}, but the model's embedding has {vocabulary} rows.")


UNTRAINED = 0.2
"""Largest norm of an embedding, as a share of the median one, that training does not explain."""


def untrained_end(prepared: Prepared, model: Any) -> str | None:
    """Say that the model has never seen the token at which answers end, as far as its embeddings show."""
    if all(is_labelled(prepared.heads.get(task)) for task in prepared.tasks):
        return None
    base = getattr(model, "base", model)  # below heads
    end, name = prepared.tokenizer.eos_token_id, f"The tokenizer's eos token `{prepared.tokenizer.eos_token}`"
    for table in (base.get_input_embeddings(), base.get_output_embeddings()):
        weight = getattr(table, "weight", None)
        if end is None or weight is None or weight.ndim != 2 or not weight.is_floating_point():
            continue
        if end >= len(weight):
            return f"{name} has id {end}, but the model's embedding has {len(weight)} rows; no answer ends with it."
        sample = weight.detach()[:: max(1, len(weight) // 4096)].float()
        own, middle = weight.detach()[end].float(), sample.norm(dim=1).median()
        # Rows added to a model are zeros, or the mean of the others.
        if own.norm() < UNTRAINED * middle or (own - sample.mean(dim=0)).norm() < UNTRAINED * middle:
            return (
                f"{name} (id {end}) looks untrained in the model's embedding, as tokens added to a vocabulary are; "
                "answers may not end with it unless it is trained (`finetuning_type: full`) or another is chosen."
            )
    return None


def check_rows_of_encoder(prepared: Prepared, model: Any) -> None:
    """Refuse rows that an encoder–decoder model cannot learn: several answers, or no prompt; streams show it later."""
    if not is_encoder_decoder(model):
        return
    tables = (("", prepared.train), ("held-out ", prepared.eval_encoded))
    for part, task in ((part, task) for part in tables for task in prepared.tasks):
        rows: Any = part[1].get(task)
        for number in range(len(rows) if rows is not None and prepared.sizes[task] is not None else 0):
            why = check_answers(rows[number].labels)
            if why is not None:
                raise InputError(
                    f"Task `{task}`: {part[0]}row {number + 1} {why}; `{type(model).__name__}` has an encoder for the "
                    "prompt and a decoder for one answer (`mask_history: true` learns the last answer of a dialogue)."
                )


def check_positions(prepared: Prepared, model: Any, max_new_tokens: int) -> None:
    """Refuse rows longer than the model's table of positions; rotary positions have none."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or getattr(model.config, "rope_parameters", None):
        return
    longest = max(int(rows.lengths.max()) for rows in prepared.train.values())
    for task, rows in prepared.eval_encoded.items():
        answer = 0 if is_labelled(prepared.heads.get(task)) else max_new_tokens
        longest = max(longest, int(rows.lengths.max()) + answer) if len(rows) else longest
    if longest > limit:
        raise InputError(
            f"The model has {limit} positions, but a row (and `max_new_tokens` behind it) takes {longest}; "
            "lower `cutoff_len`."
        )
