"""One source of rows, a file, a folder or a data set by name, and reading it."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from mtl_opt.data.read.files import READERS, Report, read_records, stop_at_first
from mtl_opt.data.read.hub import load, records_of
from mtl_opt.data.read.row_formats import RowSpec, make_row, told_format
from mtl_opt.data.read.rows import Row
from mtl_opt.errors import InputError

COLUMNAR = (".parquet", ".arrow")
"""Extensions that `datasets` reads."""

ROLES = ("main", "auxiliary")


@dataclass(frozen=True)
class TaskSettings:
    """Say what a registry adds to the rows of a task.

    Attributes:
        weight: Weight for combiners that take given weights.
        ratio: Share of the task under `mixing: ratios`.
        role: Whether the task is a main one or only helps the others.
        group: Group whose mean is reported.
        template: Template of its rows; None for that of the run.
        metrics: What its answers are measured by; empty for the run's.
        instruction: Text put before the first thing asked in every row.
        dropout: Dropout of its private parameters; None for that of the run.
        weight_decay: Weight decay of its private parameters; None for that of the run.
        penalty: Strength of the penalty on its private parameters; None for that of the way of sharing.
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
    """Say where rows come from and what is known of them.

    Attributes:
        path: A file or a folder; a name or folder of a data set where `hub` is true.
        hub: Whether `path` goes to `load_dataset` as it is.
        subset: Configuration of the data set.
        split: Its split.
        folder: Folder within it.
        spec: How records become rows.
        task: Task of rows that name none themselves.
        needs_task: Whether every row must name its task.
        strict: Whether a row that names another task is an error; otherwise the row's own name wins.
        streaming: Whether rows are read on the way instead of all at once.
        num_rows: How many rows are taken, drawn the same way in every run; None for all.
        settings: What holds for its tasks.
    """

    path: str
    hub: bool = False
    subset: str | None = None
    split: str | None = None
    folder: str | None = None
    spec: RowSpec = field(default_factory=RowSpec)
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
        spec: How records become rows; told from the first record by default.

    Returns:
        The rows in the order of the file; at least one.
    """
    return list(iterate(Source(str(path), spec=spec or RowSpec()), stop_at_first))


def iterate(source: Source, report: Report) -> Iterator[Row]:
    """Read the rows of a source one by one.

    Args:
        source: The source.
        report: Told of every bad row, which is then left out.

    Yields:
        The rows, in the order of the source.

    Raises:
        InputError: If the source cannot be read or has no rows at all.
    """
    found = False
    for file in files_of(source):
        spec = source.spec
        own = False
        for line, record in _records(source, file, report):
            own = found = True
            if spec.formatting is None and (spec.columns or isinstance(record, dict)):
                spec = replace(spec, formatting=told_format(spec.columns or record))  # type: ignore[arg-type]  # a dict
            try:
                row = make_row(record, file, line, spec)
                _check_task(row, source)
            except InputError as error:
                report(error)
            else:
                yield row
        if not own and not source.hub and Path(source.path).is_file():
            raise InputError(f"Data file `{file}` has no rows.")
    if not found:
        raise InputError(f"Data set `{source.path}` has no rows.")


def _records(source: Source, file: str, report: Report) -> Iterator[tuple[int, object]]:
    """Read the records of one file, or of a whole data set."""
    if source.hub or source.streaming or (file == source.path and Path(file).is_dir()):
        own = {"subset": source.subset, "folder": source.folder, "split": source.split} if source.hub else {}
        return records_of(load(file, streaming=source.streaming, **own), file)
    if Path(file).suffix.lower() in COLUMNAR:
        return records_of(load(file), file)
    return read_records(file, report)


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
    """Refuse a row of another task, or of none where rows must name theirs."""
    if source.strict and row.task not in {None, source.task}:
        raise InputError(f"{row.place}: the row says task `{row.task}`, but the file belongs to task `{source.task}`.")
    if source.needs_task and row.task is None:
        raise InputError(f"{row.place}: the key `task_name` is missing; in a file of several tasks every row has it.")
    if row.task is not None and not source.strict:
        check_task_name(row.task, row.place)


def check_task_name(name: object, where: str) -> None:
    """Refuse a name that cannot be a TensorBoard tag and a file name."""
    rule = "a task name is a text without `/`, control characters and blanks at its ends"
    if not isinstance(name, str) or name != name.strip() or name in {"", ".", ".."} or "/" in name:
        raise InputError(f"{where}: bad task name {name!r}; {rule}.")
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in name):
        raise InputError(f"{where}: bad task name {name!r}; {rule}.")
