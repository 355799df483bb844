"""Readers of text files (JSON lines, JSON, CSV, TSV, plain text) that locate every error by file and line."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from mtl_opt.data.read.rows import row_place
from mtl_opt.errors import InputError

BOM = b"\xef\xbb\xbf"

Report: TypeAlias = Callable[[InputError], None]
"""Handles the error of one bad row: raises it, or keeps it so that reading goes on with the next row."""

Records: TypeAlias = Iterator[tuple[int, object]]
"""Pairs of a line (in JSON, an element; from 1) and the record found there."""


def stop_at_first(error: InputError) -> None:
    """Raise the error of a bad row."""
    raise error


def read_records(file: str, report: Report) -> Records:
    """Read the records of one text file with the reader of its extension."""
    data = read_bytes(file)
    reader = READERS.get(Path(file).suffix.lower())
    if reader is None:
        raise InputError(
            f"Data file `{file}` has an unknown extension. Allowed: {', '.join(READERS)}, .parquet, .arrow."
        )
    return reader(decode(data, file), file, report)


def read_bytes(file: str) -> bytes:
    """Read a whole file, without its byte order mark."""
    try:
        return Path(file).read_bytes().removeprefix(BOM)
    except FileNotFoundError:
        raise InputError(f"Data file `{file}` does not exist.") from None
    except IsADirectoryError:
        raise InputError(f"Data file `{file}` is a directory; a file is needed.") from None
    except OSError as error:
        raise InputError(f"Data file `{file}` cannot be read: {error.strerror}.") from error


def decode(data: bytes, file: str) -> str:
    """Decode UTF-8; the error names line and byte of the first invalid byte, and guesses the encoding."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        byte = f"byte 0x{data[error.start]:02x} in line {line}, byte {column} of the line"
        looks = guess_encoding(data)
        hint = f" It looks like {looks}." if looks else ""
        raise InputError(f"Data file `{file}` is not UTF-8: {byte}.{hint} Allowed: UTF-8.") from None


def guess_encoding(data: bytes) -> str | None:
    """Guess the encoding of bytes that are not UTF-8."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "UTF-16"
    high = sum(byte >= 0x80 for byte in data[:100_000])
    try:
        text = data[:100_000].decode("gb18030", errors="ignore" if len(data) > 100_000 else "strict")
    except UnicodeDecodeError:
        text = ""
    # Chinese letters take two high bytes each; single accented letters among ASCII do not pair up like that.
    chinese = sum("\u4e00" <= letter <= "\u9fff" or "\u3000" <= letter <= "\u303f" for letter in text)
    if high >= 4 and 2 * chinese >= 0.6 * high:
        return "GB18030 (GBK)"
    return "Latin-1 (ISO 8859-1)" if high and b"\x00" not in data else None


def read_jsonl(text: str, file: str, report: Report) -> Records:
    """Yield the value of every line that is not blank."""
    # Not str.splitlines: a JSON string may contain U+2028 and U+0085 unescaped.
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                record = json.loads(content)
            except json.JSONDecodeError as error:
                report(InputError(f"{row_place(file, line)}: broken JSON, {error.msg} at column {error.colno}."))
            except (ValueError, RecursionError) as error:
                report(InputError(f"{row_place(file, line)}: JSON that cannot be read, {error}."))
            else:
                yield line, record


def read_json(text: str, file: str, _report: Report) -> Records:
    """Yield the elements of one list."""
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


def read_csv(text: str, file: str, report: Report) -> Records:
    """Yield records as mappings, with the line on which each begins; the first record names the columns."""
    return named_records(csv_records(text, file), file, report)


def read_tsv(text: str, file: str, report: Report) -> Records:
    """Yield records separated by tabs; quotation marks have no special meaning."""
    lines = ((line, content.rstrip("\r").split("\t")) for line, content in enumerate(text.split("\n"), start=1))
    return named_records((pair for pair in lines if pair[1] != [""]), file, report)


def read_text(text: str, _file: str, _report: Report) -> Records:
    """Yield every line that is not blank as `{text}`."""
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, {"text": content.rstrip("\r")}


def named_records(records: Iterator[tuple[int, list[str]]], file: str, report: Report) -> Records:
    """Yield records as mappings whose keys are the fields of the first record."""
    header: list[str] = []
    for line, fields in records:
        if not header:
            header = [name.strip() for name in fields]
            if len(set(header)) < len(header):
                raise InputError(f"{row_place(file, line)}: a column name occurs twice in {', '.join(header)}.")
        elif len(fields) != len(header):
            found = f"the number of fields is {len(fields)}, but the header has {len(header)}"
            report(InputError(f"{row_place(file, line)}: {found}."))
        else:
            yield line, dict(zip(header, fields, strict=True))


def csv_records(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """Parse CSV; yield each record that is not blank with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    # csv refuses fields beyond a limit that is global to the process; no field is longer than the text.
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        records = []
        for fields in reader:
            if fields:
                records.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{row_place(file, line)}: broken CSV, {error}.") from None
    finally:
        csv.field_size_limit(limit)
    yield from records


READERS: dict[str, Callable[[str, str, Report], Records]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": read_text,
}


def json_type(value: object) -> str:
    """Describe a JSON value by its type and, where it is a scalar, its (truncated) value."""
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
