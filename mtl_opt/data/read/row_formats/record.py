"""A record as the row formats read it: by the format's own names, from the user's columns, with checked values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_opt.data.read.files import json_type
from mtl_opt.errors import InputError

TASK_KEYS = ("task_name", "task", "channel", "task_id")
"""Keys under which a row may name its own task; the first one found counts."""


class MissingKeyError(InputError):
    """Report a row without a required key: a table that lacks it lacks it in every row."""


@dataclass(frozen=True)
class RowSpec:
    """Describe how records are converted to rows.

    Attributes:
        formatting: Name of the format; None to infer it.
        columns: Column of each of the format's names, where a name left out is not read; empty for the default columns.
        tags: Names of roles and of the keys of a message; empty for the defaults.
        difficulty: Column with a number that says how hard a row is; None for none.
        labels: Whether answers are labels of a head, which may be numbers, or missing (null, empty or no key).
    """

    formatting: str | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    labels: bool = False
    difficulty: str | None = None


@dataclass(frozen=True)
class Record:
    """Give access to one record by the names of its format.

    Attributes:
        values: Its values by column.
        where: Its place, for errors.
        spec: How it is read.
    """

    values: Mapping[str, Any]
    where: str
    spec: RowSpec

    def column(self, name: str, default: str) -> str | None:
        """Return the column of a name of the format; None where it is not read."""
        return self.spec.columns.get(name) if self.spec.columns else default

    def required(self, name: str, default: str) -> tuple[str, Any]:
        """Return column and value of a required name."""
        column = self.column(name, default) or default
        if column not in self.values:
            found = ", ".join(map(str, self.values)) or "none"
            raise MissingKeyError(f"{self.where}: the key `{column}` is missing; the row has {found}.")
        return column, self.values[column]

    def text(self, name: str, default: str) -> str:
        """Read a required text."""
        return checked_text(*self.required(name, default), self.where)

    def answer(self, name: str, default: str) -> str:
        """Read the answer: a required text or, where answers are labels, also a number or nothing."""
        value = self.value(name, default)
        if not self.spec.labels or isinstance(value, str):
            return self.text(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return self.text(name, default)  # raises
        return "" if value is None else str(value)

    def optional(self, name: str, default: str) -> str:
        """Read an optional text; empty where it is absent or null."""
        column = self.column(name, default)
        value = None if column is None else self.values.get(column)
        return "" if value is None else checked_text(str(column), value, self.where)

    def value(self, name: str, default: str) -> Any:
        """Read an optional value; None where it is absent."""
        column = self.column(name, default)
        return None if column is None else self.values.get(column)

    def group(self) -> str | None:
        """Read what the row has in common with others; None where it has nothing."""
        value = self.value("group", "group")
        return None if value is None else str(value)

    def difficulty(self) -> float | None:
        """Read how hard the row is; None where no column says so."""
        name = self.spec.difficulty
        if name is None:
            return None
        value = self.values.get(name)
        try:
            found = math.nan if value is None or isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise InputError(
                f"{self.where}: `{name}` must be a number (`mixing_args.rows: column:{name}`), got {value!r}."
            )
        return found

    def task(self, extra: Sequence[str] = ()) -> str | None:
        """Read the task that the row itself names; None where it names none."""
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
    """Check that a value is a text that UTF-8 can encode."""
    if not isinstance(value, str):
        raise InputError(f"{where}: `{key}` must be a string, got {json_type(value)}.")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{where}: `{key}` holds half of a surrogate pair, which is no character.")
    return value
