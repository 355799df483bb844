"""Readers of text files (JSON, tables, CoNLL, parallel and plain text) that locate every error by file and line."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from mtl_opt.data.read.rows import row_place
from mtl_opt.errors import InputError

BOM = b"\xef\xbb\xbf"

HEADLESS = "where line 1 is a row, give `header: false` and `columns` by position, such as {text: 1, label: 2}"
"""What to do about a table that begins with a row."""

WORD_FILES = (".conll", ".conllu", ".iob", ".iob2", ".bio")
"""Extensions of files with a word per line."""

Report: TypeAlias = Callable[[InputError], None]
"""Handles the error of one bad row: raises it, or keeps it so that reading goes on with the next row."""

Records: TypeAlias = Iterator[tuple[int, object]]
"""Pairs of a line (in JSON, an element; from 1) and the record found there."""


def stop_at_first(error: InputError) -> None:
    """Raise the error of a bad row."""
    raise error


@dataclass(frozen=True)
class Layout:
    """Describe how a text file is divided into records, where its extension does not say so.

    Attributes:
        header: Whether the first record of a table names its columns; otherwise they are named 1, 2, ...
        field: Path of keys, with dots between them, to the list of records in nested JSON; None for the top.
        target: File whose lines answer those of the file; None where a file stands alone.
        words: Whether the file holds a word per line and a blank line after each sentence (CoNLL).
    """

    header: bool = True
    field: str | None = None
    target: str | None = None
    words: bool = False


def read_records(file: str, report: Report, layout: Layout | None = None) -> Records:
    """Read the records of one text file with the reader of its layout, or else of its extension."""
    how, data = layout or Layout(), read_bytes(file)
    plain = how.target is None and not how.words and how.header and how.field is None
    suffix = Path(file).suffix.lower()
    if plain and suffix not in READERS and not data.lstrip().startswith(b"{"):
        raise InputError(
            f"Data file `{file}` has an unknown extension. Allowed: {', '.join(READERS)}, .parquet, .arrow; any other "
            "for a JSON object per line."
        )
    text = decode(data, file)
    if plain and (suffix not in READERS or (suffix == ".txt" and holds_json_lines(text))):
        return read_jsonl(text, file, report)
    if how.target is not None:
        return read_parallel((text, decode(read_bytes(how.target), how.target)), (file, how.target), report)
    if how.words:
        return read_conll(text, file, report)
    if not how.header:
        return read_headless(text, file, report, how.field)
    return read_json(text, file, report, how.field) if how.field is not None else READERS[suffix](text, file, report)


def holds_json_lines(text: str) -> bool:
    """Tell whether the first line that is not blank is a JSON object."""
    first = text.lstrip().split("\n", 1)[0]
    if not first.startswith("{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


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


def read_json(text: str, file: str, report: Report, field: str | None = None) -> Records:
    """Yield the elements of one list, which may be nested, or the object of every line."""
    if not text.strip():
        return
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and field is None:
            yield from read_jsonl("\n".join(line for line in text.split("\n") if line.strip()), file, report)
            return
        raise InputError(f"`{file}`, line {error.lineno}: broken JSON, {error.msg} at column {error.colno}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{file}` holds JSON that cannot be read: {error}.") from None
    if field is not None:
        records = nested(records, field, file)
    if not isinstance(records, list):
        inside = [key for key, value in records.items() if isinstance(value, list)] if field is None else []
        hint = f" `field: {inside[0]}` reads the list under that key." if inside else ""
        raise InputError(f"`{file}` must hold a list of objects, got {json_type(records)}.{hint}")
    yield from enumerate(records, start=1)


def nested(value: Any, field: str, file: str) -> list[Any]:
    """Return the list at a path of keys."""
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            has = ", ".join(value) if isinstance(value, dict) else json_type(value)
            raise InputError(
                f"`{file}`: `field: {field}` leads nowhere; in place of `{key}` it has {has or 'nothing'}."
            )
        value = value[key]
    if not isinstance(value, list):
        raise InputError(f"`{file}`: `field: {field}` must lead to a list of objects, got {json_type(value)}.")
    return value


def read_csv(text: str, file: str, report: Report) -> Records:
    """Yield records as mappings, with the line on which each begins; the first record names the columns."""
    return named_records(csv_records(text, file), file, report)


def read_tsv(text: str, file: str, report: Report) -> Records:
    """Yield records separated by tabs; quotation marks have no special meaning."""
    return named_records(tsv_records(text), file, report)


def tsv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Split at tabs; yield each record that is not blank with its line."""
    for line, content in enumerate(text.split("\n"), start=1):
        if content.rstrip("\r"):
            yield line, content.rstrip("\r").split("\t")


def read_headless(text: str, file: str, report: Report, field: str | None) -> Records:
    """Yield the records of a table without a header, or lists of JSON; the columns are named 1, 2, ..."""
    suffix = Path(file).suffix.lower()
    if suffix in {".json", ".jsonl"}:
        values = read_jsonl(text, file, report) if suffix == ".jsonl" else read_json(text, file, report, field)
        yield from ((n, dict(numbered(value)) if isinstance(value, list) else value) for n, value in values)
        return
    if suffix not in {".csv", ".tsv"}:
        raise InputError(
            f"Data file `{file}`: `header: false` goes with a .csv or .tsv file, or with lists in .json or .jsonl."
        )
    records = csv_records(text, file) if suffix == ".csv" else tsv_records(text)
    first = next(records, None)
    if first is None:
        return
    header = [name for name, _ in numbered(first[1])]
    yield from named_records(chain([(0, header), first], records), file, report)


def numbered(values: list[Any]) -> Iterator[tuple[str, Any]]:
    """Pair values with the positions that name them."""
    return ((str(number), value) for number, value in enumerate(values, start=1))


def read_conll(text: str, file: str, report: Report) -> Records:
    """Yield sentences as `{1: words, 2: ..., ...}`: a list for each column of lines that a blank line ends."""
    sentence: list[tuple[int, list[str]]] = []
    for line, content in enumerate([*text.split("\n"), ""], start=1):
        fields = content.strip("\r\n")
        columns = fields.split("\t") if "\t" in fields else fields.split(" ")
        if fields.strip() and not fields.startswith("-DOCSTART-"):
            sentence.append((line, [part for part in columns if part]))
        elif sentence:
            yield from sentence_columns(sentence, file, report)
            sentence = []


def sentence_columns(sentence: list[tuple[int, list[str]]], file: str, report: Report) -> Records:
    """Turn the lines of one sentence into columns; comments before its first word are no words."""
    width = len(sentence[-1][1])
    while len(sentence) > 1 and sentence[0][1][0].startswith("#") and len(sentence[0][1]) != width:
        sentence = sentence[1:]
    if Path(file).suffix.lower() == ".conllu":  # its ranges (3-4) and empty nodes (8.1) are no words
        sentence = [(line, fields) for line, fields in sentence if fields[0].isdecimal()] or sentence
    for line, fields in sentence:
        if len(fields) != width or width < 2:
            wanted = f"the sentence has {width} columns" if width > 1 else "a word and its tag are needed"
            report(InputError(f"{row_place(file, line)}: the number of columns is {len(fields)}, but {wanted}."))
            return
    yield sentence[0][0], {str(n): [fields[n - 1] for _, fields in sentence] for n in range(1, width + 1)}


def read_parallel(texts: tuple[str, str], files: tuple[str, str], report: Report) -> Records:
    """Yield the lines of two files as questions and answers; lines that are blank in both are left out."""
    asked, answered = (text.removesuffix("\n").split("\n") for text in texts)
    if len(asked) != len(answered):
        raise InputError(
            f"Data file `{files[0]}` has {len(asked)} lines and its `target_file` `{files[1]}` has {len(answered)}; "
            "line by line, the second answers the first."
        )
    for line, pair in enumerate(zip(asked, answered, strict=True), start=1):
        blank = [not part.strip() for part in pair]
        if any(blank) and not all(blank):
            full = row_place(files[not blank.index(True)], line)
            report(InputError(f"{row_place(files[blank.index(True)], line)} is blank, but {full} is not."))
        elif not any(blank):
            yield line, {"instruction": pair[0].rstrip("\r"), "output": pair[1].rstrip("\r")}


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
            other = next((mark for mark in ";\t|," if len(header) == 1 and mark in header[0]), None)
            if other is not None:
                raise InputError(
                    f"{row_place(file, line)}: {other!r} seems to part the columns; a comma does in a .csv file, a "
                    "tab in a .tsv file."
                )
            if len(set(header)) < len(header):
                raise InputError(
                    f"{row_place(file, line)}: a column name occurs twice in {', '.join(header)}; {HEADLESS}."
                )
        elif len(fields) != len(header):
            of = "the header" if header[0] != "1" else "the first line"
            found = f"the number of fields is {len(fields)}, but {of} has {len(header)}"
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
    **dict.fromkeys(WORD_FILES, read_conll),
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
