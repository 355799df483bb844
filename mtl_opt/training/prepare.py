"""Configuration → tokenizer and tokenised rows of every task."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

from mtl_opt.data import EncodedRow, Row, Template, check_tokenizer, encode_rows, get_template, load_rows
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.models import load_tokenizer
from mtl_opt.training.config import TrainConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Hold the data of a run, ready for any number of runs with the same model, rows and template.

    Attributes:
        tokenizer: The model's tokenizer, with a pad token.
        template: Text around a row.
        train: Tokenised training rows by task.
        eval_rows: Held-out rows by task, as text.
        eval_encoded: The same rows, tokenised.
        untrained: Evaluation of the model before training by task, filled by the first run that measures it.
    """

    tokenizer: Any
    template: Template
    train: dict[str, list[EncodedRow]]
    eval_rows: dict[str, list[Row]]
    eval_encoded: dict[str, list[EncodedRow]]
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in order."""
        return list(self.train)

    def only(self, tasks: list[str] | None) -> "Prepared":
        """Keep some of the tasks.

        Args:
            tasks: Names to keep; None keeps all.

        Returns:
            The same data for these tasks, in the order of the data.

        Raises:
            UnknownNameError: If a task does not exist.
        """
        if tasks is None:
            return self
        for task in tasks:
            if task not in self.train:
                raise UnknownNameError("task in `only_tasks`", task, self.train)
        kept = {name: rows for name, rows in self.train.items() if name in tasks}
        return replace(self, train=kept)


def prepare(config: TrainConfig) -> Prepared:
    """Read and tokenise what a configuration names, and log what was shortened.

    Args:
        config: The configuration; `only_tasks` is not applied here.

    Returns:
        The data of all tasks.
    """
    rows = load_rows(config.task_files, config.train_file, config.eval_file, config.val_size)
    tokenizer = load_tokenizer(config.model_name_or_path, trust_remote_code=config.trust_remote_code)
    for note in check_tokenizer(tokenizer):
        logger.info(note)
    template = get_template(config.template)
    train = {t: encode_rows(r, tokenizer, template, config.cutoff_len) for t, r in rows.train.items()}
    held_out = {t: encode_rows(r, tokenizer, template, config.cutoff_len) for t, r in rows.eval.items()}
    for task, encoded in train.items():
        shortened = sum(row.shortened for row in encoded)
        also = f", {shortened} shortened to cutoff_len {config.cutoff_len}" if shortened else ""
        logger.info("Task %s: %d rows to train on%s, %d held out.", task, len(encoded), also, len(held_out[task]))
    return Prepared(tokenizer, template, train, rows.eval, held_out)


def check_vocabulary(prepared: Prepared, vocabulary: int) -> None:
    """Refuse a tokenizer whose ids the model does not know.

    Args:
        prepared: The data.
        vocabulary: Number of rows of the model's embedding.

    Raises:
        InputError: If a row or its padding holds an id beyond the embedding.
    """
    tables = (*prepared.train.values(), *prepared.eval_encoded.values())
    largest = max(prepared.tokenizer.pad_token_id, *(max(row.input_ids) for rows in tables for row in rows))
    if largest >= vocabulary:
        raise InputError(f"The tokenizer gives token id {largest}, but the model's embedding has {vocabulary} rows.")


def check_positions(prepared: Prepared, model: Any, max_new_tokens: int) -> None:
    """Refuse rows that are longer than a model's table of positions; rotary positions have none.

    Args:
        prepared: The data.
        model: The model.
        max_new_tokens: Longest answer that is generated behind a held-out row's prompt.

    Raises:
        InputError: If a row, or an answer behind it, does not fit.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or getattr(model.config, "rope_parameters", None):
        return
    longest = max(len(row.input_ids) for rows in prepared.train.values() for row in rows)
    held_out = [len(row.input_ids) + max_new_tokens for rows in prepared.eval_encoded.values() for row in rows]
    longest = max(longest, *held_out) if held_out else longest
    if longest > limit:
        raise InputError(
            f"The model has {limit} positions, but a row (and `max_new_tokens` behind it) takes {longest}; "
            "lower `cutoff_len`."
        )
