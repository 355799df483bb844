"""Which task has which files: rows of training and evaluation per task, in the order in which tasks were named."""

import math
import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mtl_opt.data.formats import Row, read_rows
from mtl_opt.errors import InputError


@dataclass(frozen=True)
class TaskFiles:
    """Name the files of one task.

    Attributes:
        file: Rows to train on.
        eval_file: Rows to evaluate on; None to hold out a part of `file`.
        weight: The task's weight for combiners that take given weights.
    """

    file: str
    eval_file: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class TaskRows:
    """Hold the rows of every task; both mappings have the same tasks in the same order.

    Attributes:
        train: Rows to train on, at least one per task.
        eval: Rows to evaluate on; an empty list where nothing is held out.
    """

    train: dict[str, list[Row]]
    eval: dict[str, list[Row]]


def load_rows(
    tasks: Mapping[str, TaskFiles] | None, train_file: str | None, eval_file: str | None, val_size: float
) -> TaskRows:
    """Read all rows, either from one file per task or from one mixed file whose rows carry `task_name`.

    Args:
        tasks: The files of each task; None with a `train_file`.
        train_file: One file for all tasks, which come in the order of their first row; None with `tasks`.
        eval_file: One file to evaluate all tasks of `train_file` on; None to hold out a part.
        val_size: What to hold out where there is no file to evaluate on: a share below 1, a number of rows from 1.

    Returns:
        The rows of every task.

    Raises:
        InputError: If the arguments contradict each other, a file or row is bad, or a task lacks rows.
    """
    if tasks is not None and train_file is not None:
        raise InputError(f"Give either `tasks` or `train_file`, not both; got {len(tasks)} tasks and `{train_file}`.")
    if tasks is None and train_file is None:
        raise InputError("There is no training data: give `tasks` or `train_file`.")
    if not (math.isfinite(val_size) and val_size >= 0 and (val_size < 1 or val_size == int(val_size))):
        raise InputError(f"`val_size` must be a share in [0, 1) or a whole number of rows, got {val_size}.")
    if train_file is not None:
        return load_mixed(train_file, eval_file, val_size)
    if eval_file is not None:
        raise InputError(f"`eval_file` (`{eval_file}`) goes with `train_file`; with `tasks`, give each task its own.")
    assert tasks is not None  # one of the two is given
    return load_separate(tasks, val_size)


def load_separate(tasks: Mapping[str, TaskFiles], val_size: float) -> TaskRows:
    """Read one file per task."""
    if not tasks:
        raise InputError("`tasks` is empty; at least one task is needed.")
    train, held_out = {}, {}
    for task, files in tasks.items():
        check_task_name(task, "`tasks`")
        rows = rows_of_task(task, files.file)
        if files.eval_file is None:
            train[task], held_out[task] = hold_out_of_task(task, rows, val_size)
        else:
            train[task], held_out[task] = rows, rows_of_task(task, files.eval_file)
    return TaskRows(train, held_out)


def load_mixed(train_file: str, eval_file: str | None, val_size: float) -> TaskRows:
    """Read one file for all tasks."""
    rows = by_task(read_rows(train_file))
    if eval_file is not None:
        return TaskRows(rows, eval_rows(eval_file, list(rows)))
    parts = {task: hold_out_of_task(task, task_rows, val_size) for task, task_rows in rows.items()}
    return TaskRows(
        {task: train for task, (train, _) in parts.items()}, {task: out for task, (_, out) in parts.items()}
    )


def rows_of_task(task: str, file: str) -> list[Row]:
    """Read a file that belongs to one task; a row that names another one was put in the wrong file."""
    rows = read_rows(file)
    for row in rows:
        if row.task not in (None, task):
            raise InputError(f"{row.place}: the row says task `{row.task}`, but the file belongs to task `{task}`.")
    return rows


def eval_rows(file: str, tasks: Sequence[str]) -> dict[str, list[Row]]:
    """Read the one file that all tasks are evaluated on."""
    found = by_task(read_rows(file))
    for task, rows in found.items():
        if task not in tasks:
            raise InputError(f"{rows[0].place}: unknown task `{task}`. Tasks with training rows: {', '.join(tasks)}.")
    missing = [task for task in tasks if task not in found]
    if missing:
        raise InputError(f"Evaluation file `{file}` has no rows of task {', '.join(f'`{task}`' for task in missing)}.")
    return {task: found[task] for task in tasks}


def by_task(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sort rows by the task they carry, tasks in the order of their first row."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.task is None:
            raise InputError(
                f"{row.place}: the key `task_name` is missing; in a file of several tasks every row has it."
            )
        if row.task not in found:
            check_task_name(row.task, row.place)
        found.setdefault(row.task, []).append(row)
    return found


def hold_out(rows: Sequence[Row], val_size: float) -> tuple[list[Row], list[Row]]:
    """Divide rows in two, the same way in every run: the training seed changes what is drawn, never what is measured.

    Args:
        rows: Rows of one task.
        val_size: A share below 1 (rounded, at least one row), a number of rows from 1; 0 holds out nothing.

    Returns:
        The rows to train on and the rows held out, both in the order given.

    Raises:
        InputError: If no row would be left to train on.
    """
    if val_size == 0:
        return list(rows), []
    num_out = int(val_size) if val_size >= 1 else max(1, round(val_size * len(rows)))
    if num_out >= len(rows):
        raise InputError(
            f"Holding out {num_out} of {len(rows)} row{'s' * (len(rows) != 1)} (`val_size` {val_size}) leaves nothing "
            "to train on; give an `eval_file` or a smaller `val_size`."
        )
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    chosen = set(order[:num_out])
    return [r for i, r in enumerate(rows) if i not in chosen], [r for i, r in enumerate(rows) if i in chosen]


def hold_out_of_task(task: str, rows: Sequence[Row], val_size: float) -> tuple[list[Row], list[Row]]:
    """Hold out rows and name the task where that cannot be done."""
    try:
        return hold_out(rows, val_size)
    except InputError as error:
        raise InputError(f"Task `{task}`: {error}") from None


def check_task_name(name: object, where: str) -> None:
    """Refuse a name that cannot be a TensorBoard tag and a file name.

    Args:
        name: The name as the user wrote it.
        where: Where it was written, for the error.

    Raises:
        InputError: If the name is no text, empty, blank at an end, or holds a slash or a control character.
    """
    rule = "a task name is a text without `/`, control characters and blanks at its ends"
    if not isinstance(name, str) or name != name.strip() or name in {"", ".", ".."} or "/" in name:
        raise InputError(f"{where}: bad task name {name!r}; {rule}.")
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in name):
        raise InputError(f"{where}: bad task name {name!r}; {rule}.")
