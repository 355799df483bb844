"""Row formats: one function per format converts a record to a row; the format can be inferred from the columns."""

from collections.abc import Callable, Mapping
from typing import Any

from mtl_opt.data.read.files import json_type
from mtl_opt.data.read.row_formats.dialogue import chat_rounds, check_only_answer, openai, sharegpt
from mtl_opt.data.read.row_formats.plain import (
    alpaca,
    classification,
    multiple_choice,
    plain_text,
    prompt_completion,
    token_classification,
)
from mtl_opt.data.read.row_formats.record import TASK_KEYS, MissingKeyError, Record, RowSpec
from mtl_opt.data.read.rows import Row, row_place
from mtl_opt.data.read.usage import Usage
from mtl_opt.errors import InputError

__all__ = ["COLUMNS", "FORMATS", "TASK_KEYS", "MissingKeyError", "RowSpec", "infer_format", "make_row"]

FORMATS: dict[str, Callable[[Record], dict[str, Any]]] = {
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "openai": openai,
    "chat_rounds": chat_rounds,
    "prompt_completion": prompt_completion,
    "text": plain_text,
    "multiple_choice": multiple_choice,
    "classification": classification,
    "token_classification": token_classification,
    "conll": token_classification,
}
"""Row formats by their name in `formatting`."""

COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools",
    "completion", "text", "label", "question", "choices", "answer", "tokens", "tags", "task", "group",
)  # fmt: skip
"""Names that `columns` of a registry entry may map to columns."""

FORMAT_KEYS = (
    ("messages", "openai"),
    ("conversations", "sharegpt"),
    ("chat_rounds", "chat_rounds"),
    ("choices", "multiple_choice"),
    ("completion", "prompt_completion"),
    ("tokens", "token_classification"),
    ("label", "classification"),
)
"""Keys that identify a format; the first one found decides, and `instruction` (alpaca) decides before all."""


def infer_format(keys: Mapping[str, Any]) -> str:
    """Infer a format from the keys of a record, or of `columns` of a registry entry.

    Args:
        keys: A mapping with these keys.

    Returns:
        Name of the format; alpaca by default.
    """
    if "instruction" in keys:
        return "alpaca"
    for key, name in FORMAT_KEYS:
        if key in keys and (key != "label" or "text" in keys):
            return name
    return "text" if "text" in keys else "alpaca"


def make_row(values: object, file: str, line: int, spec: RowSpec, usage: Usage | None = None) -> Row:
    """Check one record and convert it to a row.

    Args:
        values: The record, which must be a mapping.
        file: Its file as the user named it.
        line: Its line, from 1.
        spec: How it is read; where `formatting` is None, the format is inferred.
        usage: Counts the columns that are not read.

    Returns:
        The row.

    Raises:
        InputError: If the record does not fit the format.
    """
    where = row_place(file, line)
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: a row must be an object, got {json_type(values)}.")
    seen = values if usage is None else usage.watch(values)
    record = Record(seen, where, spec)
    form = spec.formatting or infer_format(spec.columns or values)
    fields = FORMATS[form](record)
    if "learn" not in fields:
        check_only_answer(record)
    joined = fields.pop("joined", False)
    group, difficulty = record.group(), record.difficulty()
    row = Row(file=file, line=line, group=group, difficulty=difficulty, **{"task": record.task(), **fields})
    if usage is not None:
        usage.add(seen, form)
        usage.joined += joined
    return row
