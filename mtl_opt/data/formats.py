"""Files to rows: alpaca rows from JSON lines, JSON and CSV, and one clear sentence for whatever is wrong in a file."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_opt.errors import InputError

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """Hold one example and where it was written, so that every later error can point at it.

    Attributes:
        instruction: What is asked.
        input: What it is asked about; empty where the instruction says it all.
        output: The answer to learn.
        task: The row's own `task_name`; None where it has none.
        file: The file as the user named it.
        line: Line in JSON lines and CSV (that of the row's beginning), index of the element in JSON; from 1.
    """

    instruction: str
    input: str
    output: str
    task: str | None
    file: str
    line: int

    @property
    def user_text(self) -> str:
        """Join instruction and input by a line break, without the part that is empty."""
        return "\n".join(part for part in (self.instruction, self.input) if part)

    @property
    def place(self) -> str:
        """Say where the row stands, for error sentences."""
        return place(self.file, self.line)


def place(file: str, line: int) -> str:
    """Name a row of a file in the words of its format.

    Args:
        file: The file as the user named it.
        line: Line, or index of the element in JSON; from 1.

    Returns:
        Such as "`qa.jsonl`, line 3".
    """
    return f"`{file}`, {'element' if file.lower().endswith('.json') else 'line'} {line}"


def read_rows(path: str | Path) -> list[Row]:
    """Read alpaca rows from `.jsonl` (blank lines are skipped), `.json` (a list of objects) or `.csv` (with a header).

    A row has `instruction` and `output`, may have `input` and `task_name` (null is the same as absent), and whatever
    else it has is ignored.

    Args:
        path: The file, in UTF-8 with or without byte order mark.

    Returns:
        The rows in the order of the file; at least one.

    Raises:
        InputError: If the file cannot be read, is not of the format its extension promises, or holds a bad row.
    """
    file = str(path)
    data = read_bytes(file)
    reader = READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise InputError(f"Data file `{file}` has an unknown extension. Allowed: {', '.join(READERS)}.")
    rows = [make_row(record, file, line) for line, record in reader(decode(data, file), file)]
    if not rows:
        raise InputError(f"Data file `{file}` has no rows.")
    return rows


def read_bytes(file: str) -> bytes:
    """Read a whole file without its byte order mark."""
    try:
        return Path(file).read_bytes().removeprefix(BOM)
    except FileNotFoundError:
        raise InputError(f"Data file `{file}` does not exist.") from None
    except IsADirectoryError:
        raise InputError(f"Data file `{file}` is a directory; a file is needed.") from None
    except OSError as error:
        raise InputError(f"Data file `{file}` cannot be read: {error.strerror}.") from error


def decode(data: bytes, file: str) -> str:
    """Decode UTF-8, telling line and byte of what is not."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        byte = f"byte 0x{data[error.start]:02x} in line {line}, byte {column} of the line"
        raise InputError(f"Data file `{file}` is not UTF-8: {byte}. Allowed: UTF-8.") from None


def read_jsonl(text: str, file: str) -> Iterator[tuple[int, object]]:
    """Give each line's number and value; split at line feeds alone, since a JSON string may hold U+2028 as it is."""
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                record = json.loads(content)
            except json.JSONDecodeError as error:
                raise InputError(f"{place(file, line)}: broken JSON, {error.msg} at column {error.colno}.") from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{place(file, line)}: JSON that cannot be read, {error}.") from None
            yield line, record


def read_json(text: str, file: str) -> Iterator[tuple[int, object]]:
    """Give each element's index, from 1, and value."""
    if not text.strip():
        return
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        hint = " A file with one object per line has the extension .jsonl." if error.msg == "Extra data" else ""
        raise InputError(
            f"`{file}`, line {error.lineno}: broken JSON, {error.msg} at column {error.colno}.{hint}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{file}` holds JSON that cannot be read: {error}.") from None
    if not isinstance(records, list):
        raise InputError(f"`{file}` must hold a list of objects, got {json_type(records)}.")
    yield from enumerate(records, start=1)


def read_csv(text: str, file: str) -> Iterator[tuple[int, object]]:
    """Give the line on which each record begins and the record as a mapping; the first record names the columns."""
    records = csv_records(text, file)
    header: list[str] = []
    for line, fields in records:
        if not header:
            header = [name.strip() for name in fields]
            if len(set(header)) < len(header):
                raise InputError(f"{place(file, line)}: a column name occurs twice in {', '.join(header)}.")
        elif len(fields) != len(header):
            raise InputError(
                f"{place(file, line)}: the number of fields is {len(fields)}, but the header has {len(header)}."
            )
        else:
            yield line, dict(zip(header, fields, strict=True))


def csv_records(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """Give each non-blank record with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    # The module refuses fields beyond a limit that is global to the process; a text is never longer than the file.
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        records = []
        for fields in reader:
            if fields:
                records.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{place(file, line)}: broken CSV, {error}.") from None
    finally:
        csv.field_size_limit(limit)
    yield from records


READERS: dict[str, Callable[[str, str], Iterator[tuple[int, object]]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
}


def make_row(record: object, file: str, line: int) -> Row:
    """Check one record and make it a row."""
    where = place(file, line)
    if not isinstance(record, dict):
        raise InputError(f"{where}: a row must be an object, got {json_type(record)}.")
    for key in ("instruction", "output"):
        if key not in record:
            raise InputError(
                f"{where}: the key `{key}` is missing; the row has {', '.join(map(str, record)) or 'none'}."
            )
    row = Row(
        instruction=text_of(record, "instruction", where),
        input=optional_text_of(record, "input", where) or "",
        output=text_of(record, "output", where),
        task=optional_text_of(record, "task_name", where),
        file=file,
        line=line,
    )
    if not row.output.strip():
        raise InputError(f"{where}: `output` is empty; a row needs an answer to learn.")
    if not row.user_text.strip():
        raise InputError(f"{where}: `instruction` and `input` are both empty.")
    if row.task is not None and not row.task.strip():
        raise InputError(f"{where}: `task_name` is empty; name a task or leave the key out.")
    return row


def text_of(record: Mapping[str, Any], key: str, where: str) -> str:
    """Read one value that must be a text."""
    value = record[key]
    if not isinstance(value, str):
        raise InputError(f"{where}: `{key}` must be a string, got {json_type(value)}.")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{where}: `{key}` holds half of a surrogate pair, which is no character.")
    return value


def optional_text_of(record: Mapping[str, Any], key: str, where: str) -> str | None:
    """Read one value that may be absent or null."""
    return None if record.get(key) is None else text_of(record, key, where)


def json_type(value: object) -> str:
    """Name a JSON value with its type, cut where it is long."""
    match value:
        case None:
            return "null"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {value[:40]!r}"
        case list():
            return "a list"
    return "an object"
