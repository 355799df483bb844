"""One record as its format reads it: by the names of the format, from the columns of the user, each value checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_opt.data.read.files import json_type
from mtl_opt.errors import InputError

TASK_KEYS = ("task_name", "task", "channel", "task_id")
"""Keys under which a row names its own task, the first one found wins."""


@dataclass(frozen=True)
class RowSpec:
    """Say how records become rows.

    Attributes:
        formatting: Name of the format; None to tell it from the columns.
        columns: Column of each name of the format; empty for the format's own. A name left out is not read.
        tags: Names of roles and of the keys of a message; empty for the usual ones.
        labels: Whether answers are labels of a head: they may be numbers, and missing (null, empty or no key).
    """

    formatting: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    labels: bool = False


@dataclass(frozen=True)
class Record:
    """Hold one record while it is read.

    Attributes:
        values: Its values by column.
        where: Its place, for errors.
        spec: How it is read.
    """

    values: Mapping[str, Any]
    where: str
    spec: RowSpec

    def column(self, name: str, default: str) -> str | None:
        """Find the column of a name of the format."""
        return self.spec.columns.get(name) if self.spec.columns else default

    def required(self, name: str, default: str) -> tuple[str, Any]:
        """Find the column and value of what a row must have."""
        column = self.column(name, default) or default
        if column not in self.values:
            found = ", ".join(map(str, self.values)) or "none"
            raise InputError(f"{self.where}: the key `{column}` is missing; the row has {found}.")
        return column, self.values[column]

    def text(self, name: str, default: str) -> str:
        """Read a text that a row must have."""
        return checked_text(*self.required(name, default), self.where)

    def answer(self, name: str, default: str) -> str:
        """Read the answer: a text that a row must have, or a label, which may be a number or missing."""
        value = self.value(name, default)
        if not self.spec.labels or isinstance(value, str):
            return self.text(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return self.text(name, default)  # says what is wrong
        return "" if value is None else str(value)

    def optional(self, name: str, default: str) -> str:
        """Read a text that may be absent or null."""
        column = self.column(name, default)
        value = None if column is None else self.values.get(column)
        return "" if value is None else checked_text(str(column), value, self.where)

    def value(self, name: str, default: str) -> Any:
        """Read a value that may be absent."""
        column = self.column(name, default)
        return None if column is None else self.values.get(column)

    def task(self, extra: Sequence[str] = ()) -> str | None:
        """Read the task that the row names itself."""
        keys = (*TASK_KEYS, *extra)
        if "task" in self.spec.columns:
            keys = () if self.spec.columns["task"] is None else (str(self.spec.columns["task"]),)
        key = next((key for key in keys if self.values.get(key) is not None), None)
        if key is None:
            return None
        value = self.values[key]
        if key != "task_name" and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        name = checked_text(key, value, self.where)
        if not name.strip():
            raise InputError(f"{self.where}: `{key}` is empty; name a task or leave the key out.")
        return name


def checked_text(key: str, value: object, where: str) -> str:
    """Check a value that must be a text."""
    if not isinstance(value, str):
        raise InputError(f"{where}: `{key}` must be a string, got {json_type(value)}.")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{where}: `{key}` holds half of a surrogate pair, which is no character.")
    return value
