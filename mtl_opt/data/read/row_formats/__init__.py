"""Records to rows: one function per format, and telling a format from the columns."""

from collections.abc import Callable, Mapping
from typing import Any

from mtl_opt.data.read.files import json_type
from mtl_opt.data.read.row_formats.dialogue import chat_rounds, openai, sharegpt
from mtl_opt.data.read.row_formats.plain import (
    alpaca,
    classification,
    multiple_choice,
    plain_text,
    prompt_completion,
    token_classification,
)
from mtl_opt.data.read.row_formats.record import TASK_KEYS, Record, RowSpec
from mtl_opt.data.read.rows import Row, place
from mtl_opt.errors import InputError

__all__ = ["COLUMNS", "FORMATS", "TASK_KEYS", "RowSpec", "make_row", "told_format"]

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
}
"""Row formats by the name of `formatting`."""

COLUMNS = (
    "prompt", "query", "response", "history", "messages", "system", "tools",
    "completion", "text", "label", "question", "choices", "answer", "tokens", "tags", "task",
)  # fmt: skip
"""Names that `columns` of a registry may give a column to."""

TELLING = (
    ("messages", "openai"),
    ("conversations", "sharegpt"),
    ("chat_rounds", "chat_rounds"),
    ("choices", "multiple_choice"),
    ("completion", "prompt_completion"),
    ("tokens", "token_classification"),
    ("label", "classification"),
)
"""Keys that tell a format, the first one found wins; of an alpaca row `instruction` does."""


def told_format(keys: Mapping[str, Any]) -> str:
    """Tell a format from the keys of a record, or of a registry's `columns`.

    Args:
        keys: The keys that are there.

    Returns:
        Name of the format; alpaca where nothing tells another.
    """
    if "instruction" in keys:
        return "alpaca"
    for key, name in TELLING:
        if key in keys and (key != "label" or "text" in keys):
            return name
    return "text" if "text" in keys else "alpaca"


def make_row(values: object, file: str, line: int, spec: RowSpec) -> Row:
    """Check one record and make it a row.

    Args:
        values: The record.
        file: Its file as the user named it.
        line: Its line.
        spec: How it is read; `formatting` is told from the record where it is None.

    Returns:
        The row.

    Raises:
        InputError: If the record is no row of the format.
    """
    where = place(file, line)
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: a row must be an object, got {json_type(values)}.")
    record = Record(values, where, spec)
    fields = FORMATS[spec.formatting or told_format(spec.columns or values)](record)
    return Row(file=file, line=line, **{"task": record.task(), **fields})
