"""Sources of rows (a file, a folder, or a named data set) and reading them."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mtl_opt.data.read.files import (
    HEADLESS,
    READERS,
    WORD_FILES,
    Layout,
    Report,
    holds_json_lines,
    read_records,
    stop_at_first,
)
from mtl_opt.data.read.hub import BUILDERS, load_dataset, records_of
from mtl_opt.data.read.row_formats import MissingKeyError, RowSpec, infer_format, make_row
from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.usage import Usage
from mtl_opt.errors import InputError

COLUMNAR = (".parquet", ".arrow")
"""File extensions that only `datasets` reads."""

ROLES = ("main", "auxiliary")


@dataclass(frozen=True)
class TaskSettings:
    """Hold the settings of one task.

    Attributes:
        weight: Weight of the task for combiners that take given weights.
        ratio: Share of the task in [0, 1] under `mixing: ratios`.
        role: "main", or "auxiliary" for a task that only serves the others.
        group: Group of tasks whose mean metric is reported.
        template: Template of its rows; None for that of the run.
        metrics: Metrics of its answers; empty for those of the run.
        instruction: Text put before the first question of every row.
        dropout: Dropout of its private parameters; None for that of the run.
        weight_decay: Weight decay of its private parameters; None for that of the run.
        penalty: Strength of the penalty on its private parameters; None for the default of the sharing method.
    """

    weight: float = 1.0
    ratio: float | None = None
    role: str = "main"
    group: str | None = None
    template: str | None = None
    metrics: tuple[str, ...] = ()
    instruction: str = ""
    dropout: float | None = None
    weight_decay: float | None = None
    penalty: float | None = None


@dataclass(frozen=True)
class Source:
    """Describe where rows come from and how they are read.

    Attributes:
        path: A file or a folder; with `hub`, the name or folder of a data set.
        hub: Pass `path` to `datasets.load_dataset` as it is.
        subset: Configuration of the data set.
        split: Split of the data set; None for train.
        folder: Folder within the data set.
        spec: How records are converted to rows.
        layout: How text files are divided into records.
        task: Task of rows that name none themselves.
        needs_task: Require every row to name its task.
        strict: Refuse rows that name another task; otherwise the row's own name takes precedence.
        streaming: Read rows during training instead of all at once.
        num_rows: Number of rows to draw, the same ones in every run; None for all.
        settings: Settings of its tasks.
    """

    path: str
    hub: bool = False
    subset: str | None = None
    split: str | None = None
    folder: str | None = None
    spec: RowSpec = field(default_factory=RowSpec)
    layout: Layout = field(default_factory=Layout)
    task: str | None = None
    needs_task: bool = False
    strict: bool = False
    streaming: bool = False
    num_rows: int | None = None
    settings: TaskSettings = field(default_factory=TaskSettings)


def read_rows(path: str | Path, spec: RowSpec | None = None) -> list[Row]:
    """Read the rows of one file or folder.

    Args:
        path: A file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.txt`, `.parquet`, `.arrow`) or a folder of such files.
        spec: How records are converted to rows; by default the format is inferred from the first record.

    Returns:
        The rows in the order of the file; at least one.
    """
    return list(iterate(Source(str(path), spec=spec or RowSpec()), stop_at_first))


def iterate(source: Source, report: Report, usage: Usage | None = None) -> Iterator[Row]:
    """Read the rows of a source one by one.

    Args:
        source: The source.
        report: Called with the error of every bad row; where it returns, the row is left out.
        usage: Counts the columns that are not read.

    Yields:
        The good rows, in the order of the source.

    Raises:
        InputError: If the source cannot be read or has no rows at all.
    """
    found = False
    for file in files_of(source):
        spec = source.spec
        own = False
        for line, record in _records(source, file, report):
            if not own:
                spec = spec_of(source, file, record, usage)
            own = found = True
            try:
                row = make_row(record, file, line, spec, usage)
                _check_task(row, source)
            except MissingKeyError as error:
                report_missing(error, file, source, report)
            except InputError as error:
                report(error)
            else:
                yield row
        if not own and not source.hub and Path(source.path).is_file():
            raise InputError(f"Data file `{file}` has no rows.")
    if not found:
        raise InputError(f"Data set `{source.path}` has no rows.")


def spec_of(source: Source, file: str, record: object, usage: Usage | None) -> RowSpec:
    """Complete what is configured of a row's form by the first record of a file."""
    spec = source.spec
    if reads_words(source, file) and not spec.columns and isinstance(record, dict):
        words, tags = ("2", "4") if file.lower().endswith(".conllu") else ("1", str(len(record)))
        spec = replace(spec, columns={"tokens": words, "tags": tags})
    if spec.formatting is None and (spec.columns or isinstance(record, dict)):
        if usage is not None:
            usage.inferred = not spec.columns
        spec = replace(spec, formatting=infer_format(spec.columns or record))  # type: ignore[arg-type]  # a dict
    return spec


def reads_words(source: Source, file: str) -> bool:
    """Tell whether a file has a word per line."""
    return source.layout.words or Path(file).suffix.lower() in WORD_FILES


def report_missing(error: MissingKeyError, file: str, source: Source, report: Report) -> None:
    """Report a row that lacks a key, or raise where the whole table lacks it."""
    suffix = Path(file).suffix.lower()
    if suffix not in {".csv", ".tsv", *COLUMNAR} and not source.hub:
        report(error)
        return
    hint = f"; {HEADLESS}" if suffix in {".csv", ".tsv"} and source.layout.header else ""
    raise InputError(f"{str(error).rstrip('.')}, like every other{hint}.") from None


def _records(source: Source, file: str, report: Report) -> Iterator[tuple[int, object]]:
    """Read the records of one file, or of a whole data set, with the reader that fits."""
    plain = source.layout == Layout() and not reads_words(source, file) and not holds_json_text(file)
    if source.hub or (source.streaming and plain) or (file == source.path and Path(file).is_dir()):
        own = {"subset": source.subset, "folder": source.folder, "split": source.split} if source.hub else {}
        return records_of(load_dataset(file, streaming=source.streaming, **own), file)
    if Path(file).suffix.lower() in COLUMNAR:
        return records_of(load_dataset(file), file)
    return read_records(file, report, replace(source.layout, words=reads_words(source, file)))


def holds_json_text(file: str) -> bool:
    """Tell whether a file that has no extension of JSON holds a JSON object per line."""
    if Path(file).suffix.lower() in {*BUILDERS, *COLUMNAR} - {".txt"} or not Path(file).is_file():
        return False
    with Path(file).open(encoding="utf-8-sig", errors="replace") as text:
        return holds_json_lines(next((line for line in text if line.strip()), ""))


def files_of(source: Source) -> list[str]:
    """List the files of a source."""
    path = Path(source.path)
    if source.hub or not path.is_dir() or (path / "state.json").exists():
        return [source.path]
    known = (*READERS, *COLUMNAR)
    files = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in known and file.is_file())
    if not files:
        raise InputError(f"Folder `{source.path}` holds no data file. Allowed: {', '.join(known)}.")
    return files


def _check_task(row: Row, source: Source) -> None:
    """Raise if a row names another task than its source, or none where it must, or an invalid one."""
    if source.strict and row.task not in {None, source.task}:
        raise InputError(f"{row.place}: the row says task `{row.task}`, but the file belongs to task `{source.task}`.")
    if source.needs_task and row.task is None:
        raise InputError(f"{row.place}: the key `task_name` is missing; in a file of several tasks every row has it.")
    if row.task is not None and not source.strict:
        check_task_name(row.task, row.place)


def check_task_name(name: object, where: str) -> None:
    """Raise if a task name cannot be a TensorBoard tag and a file name."""
    rule = "a task name is a text without `/`, control characters and blanks at its ends"
    if not isinstance(name, str) or name != name.strip() or name in {"", ".", ".."} or "/" in name:
        raise InputError(f"{where}: bad task name {name!r}; {rule}.")
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in name):
        raise InputError(f"{where}: bad task name {name!r}; {rule}.")
