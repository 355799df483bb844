"""Registry entries: data sets as configured under `tasks:` or in a LLaMA-Factory `dataset_info.json`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl_opt.checks import Check, choice, flag, name_list, number, text, whole
from mtl_opt.data.read.files import Layout
from mtl_opt.data.read.row_formats import COLUMNS, FORMATS, RowSpec
from mtl_opt.data.read.row_formats.dialogue import TAG_ROLES
from mtl_opt.data.read.sources import ROLES, Source, TaskSettings, check_task_name
from mtl_opt.data.text.template_names import TEMPLATES
from mtl_opt.errors import InputError, UnknownNameError

INFO = "dataset_info.json"

TAGS = ("role_tag", "content_tag", *TAG_ROLES)

OTHER_MEDIA = ("images", "videos", "audios", "chosen", "rejected", "kto_tag")
"""Columns of a LLaMA-Factory registry that mark rows as something other than supervised text."""

LEGACY = ("file_sha1", "load_from", "ms_hub_url", "om_hub_url", "ranking", "script_url", "cloud_file_name")
"""Fields of a LLaMA-Factory registry that only serve to refuse entries that cannot be read."""


@dataclass(frozen=True)
class Entry:
    """Pair the sources of one task, or of one data set that may hold several.

    Attributes:
        train: Source of training rows.
        eval: Source of evaluation rows; None to hold out training rows.
    """

    train: Source
    eval: Source | None = None


def task_entries(tasks: Mapping[str, Mapping[str, Any]]) -> list[Entry]:
    """Read the entries under `tasks:`, whose keys are the names of the tasks.

    Args:
        tasks: Entries by task.

    Returns:
        One entry per task; relative paths start at the current directory.

    Raises:
        InputError: If there is no task, or a name or entry is invalid.
    """
    if not tasks:
        raise InputError("`tasks` is empty; at least one task is needed.")
    for name in tasks:
        check_task_name(name, "`tasks`")
    return [read_entry(name, entry, Path(), f"tasks.{name}", strict=True) for name, entry in tasks.items()]


def registry_entries(dataset_dir: str, names: Sequence[str]) -> list[Entry]:
    """Read data sets by name from a `dataset_info.json`.

    Args:
        dataset_dir: Folder of the file, to which its paths are relative; with `ONLINE`, the names are hub names.
        names: Data sets to read. A row's own task takes precedence over the entry's `task`, by default its name.

    Returns:
        One entry per name.

    Raises:
        InputError: If the file cannot be read, or an entry is invalid.
        UnknownNameError: If there is no data set of that name.
    """
    if dataset_dir == "ONLINE":
        return [Entry(Source(name, hub=True, task=Path(name).name)) for name in names]
    path = Path(dataset_dir) / INFO
    registry = read_info(path)
    for name in names:
        if name not in registry:
            raise UnknownNameError(f"data set in `{path}`:", name, registry)
        if not isinstance(registry[name], dict):
            raise InputError(f"`{path}`: entry `{name}` must be an object.")
    base = Path(dataset_dir)
    return [read_entry(name, registry[name], base, f"{path}: {name}", strict=False) for name in names]


PARTS = re.compile(r"[_-](?:train|training|test|dev|eval|val|valid|validation)$", re.IGNORECASE)
"""Endings of names of data sets that say which part of the data they are."""


def held_out_sources(
    dataset_dir: str, names: Sequence[str], trained: Mapping[str, str]
) -> tuple[list[Source], list[str]]:
    """Read held-out data sets by name, each with the task whose rows it holds.

    Args:
        dataset_dir: As for `registry_entries`.
        names: Data sets to read.
        trained: Task of each data set that is trained on, in order.

    Returns:
        One source per name, and a note for each whose task is not its own name: it is the entry's `task`, or that of
        the data set with the same name but for an ending such as `_test`, or, of as many, of the one at its place.
    """
    online = dataset_dir == "ONLINE"
    named = {} if online else {n: (e or {}).get("task") for n, e in read_info(Path(dataset_dir) / INFO).items()}
    stems = {PARTS.sub("", name): task for name, task in trained.items()}
    stems |= {PARTS.sub("", task): task for task in trained.values()}
    found, notes = [], []
    for place, (name, entry) in enumerate(zip(names, registry_entries(dataset_dir, names), strict=True)):
        task = str(entry.train.task)
        if named.get(name) is None and task not in trained.values():
            by_order = [*trained.values()][place] if len(names) == len(trained) else task
            task = stems.get(PARTS.sub("", task), by_order)
        if task != entry.train.task:
            notes.append(f"Held-out rows of `{name}` are of task `{task}`.")
        found.append(replace(entry.train, task=task))
    return found, notes


def read_info(path: Path) -> dict[str, Any]:
    """Read a `dataset_info.json`; raise on duplicate keys, of which JSON would silently drop all but the last."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"`{path}`: `{twice}` stands twice.")
        return found

    try:
        registry = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except FileNotFoundError:
        raise InputError(f"`dataset_dir`: there is no `{path}`.") from None
    except OSError as error:
        raise InputError(f"`dataset_dir`: `{path}` cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"`dataset_dir`: `{path}` is not UTF-8.") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"`dataset_dir`: `{path}` is no valid JSON: {error}.") from error
    if not isinstance(registry, dict):
        raise InputError(f"`dataset_dir`: `{path}` must hold an object with an entry per data set.")
    return registry


def read_entry(name: str, entry: Mapping[str, Any], base: Path, where: str, *, strict: bool) -> Entry:
    """Convert one entry to sources; with `strict`, `task` and the rows may name no task but `name`."""
    values = check_entry(entry, where)
    refuse_other_rows(entry, values, where)
    task = values.get("task", name)
    check_task_name(task, f"`{where}`")
    if strict and task != name:
        raise InputError(f"`{where}.task`: under `tasks` the key names the task, got {task!r}.")
    file, hub = values.get("file", values.get("file_name")), values.get("hf_hub_url")
    if (file is None) == (hub is None):
        raise InputError(f"`{where}.file` must be a non-empty text, or `{where}.hf_hub_url`; one of the two is needed.")
    settings = TaskSettings(
        **{
            key: values[key]
            for key in ("weight", "ratio", "role", "group", "template", "instruction", *PRIVATE_KEYS)
            if key in values
        },
        metrics=tuple(values.get("metrics", ())),
    )
    train = Source(
        path=str(hub) if file is None else str(base / file),
        hub=file is None,
        subset=values.get("subset"),
        split=values.get("split"),
        folder=values.get("folder"),
        spec=RowSpec(values.get("formatting"), values.get("columns", {}), values.get("tags", {})),
        layout=read_layout(values, base, where),
        task=task,
        strict=strict,
        num_rows=values.get("num_samples"),
        settings=settings,
    )
    held_out = values.get("eval_file", file if values.get("eval_field") else None)
    return Entry(train, None if held_out is None else held_out_source(train, base, held_out, values))


def held_out_source(train: Source, base: Path, file: str, values: Mapping[str, Any]) -> Source:
    """Convert what an entry says of its held-out rows to a source; what it does not say is as in training."""
    answers = values.get("eval_target_file")
    layout = replace(
        train.layout,
        field=values.get("eval_field", train.layout.field),
        target=None if answers is None else str(base / answers),
    )
    return replace(
        train, path=str(base / file), hub=False, subset=None, split=None, folder=None, num_rows=None, layout=layout
    )


def read_layout(values: Mapping[str, Any], base: Path, where: str) -> Layout:
    """Read how the files of an entry are divided into records; raise where keys contradict each other."""
    target, headless = values.get("target_file"), not values.get("header", True)
    field, words = values.get("field", values.get("eval_field")), values.get("formatting") == "conll"
    ways = {"target_file": target, "formatting: conll": words, "header: false": headless, "field": field}
    given = [key for key, has in ways.items() if has]
    if len(given) > 1 and given != ["header: false", "field"]:  # lists in nested JSON
        raise InputError(f"`{where}`: `{given[0]}` and `{given[1]}` are two ways to read a file; give one of them.")
    if given and values.get("hf_hub_url"):
        raise InputError(f"`{where}`: `{given[0]}` says how a file is read, and goes with `file`.")
    if headless and not values.get("columns"):
        raise InputError(
            f"`{where}`: `header: false` needs `columns` by position, from 1: `columns: {{text: 1, label: 2}}`."
        )
    if target is not None and (values.get("columns") or values.get("formatting")):
        raise InputError(f"`{where}`: lines of `file` and `target_file` are question and answer; they have no columns.")
    if values.get("eval_file") and (target is None) != (values.get("eval_target_file") is None):
        raise InputError(f"`{where}`: `target_file` and `eval_target_file` go together where there is an `eval_file`.")
    if values.get("eval_target_file") and not values.get("eval_file"):
        raise InputError(f"`{where}.eval_target_file` goes with `eval_file`.")
    return Layout(not headless, values.get("field"), None if target is None else str(base / target), words)


def refuse_other_rows(entry: Mapping[str, Any], values: Mapping[str, Any], where: str) -> None:
    """Raise if the rows of an entry are no supervised text, or come from where they cannot be read."""
    media = [key for key in OTHER_MEDIA if (entry.get("columns") or {}).get(key)]
    if entry.get("ranking") or media:
        what = f"`{media[0]}`" if media else "pairs to rank"
        raise InputError(f"`{where}` holds {what}; only rows of text with an answer to learn can be trained on.")
    if not any(values.get(key) for key in ("file", "file_name", "hf_hub_url")):
        for key in ("script_url", "cloud_file_name", "ms_hub_url", "om_hub_url"):
            if entry.get(key):
                raise InputError(f"`{where}`: rows from `{key}` cannot be had here; give `file_name` or `hf_hub_url`.")


def check_entry(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check all keys and values of an entry.

    Args:
        entry: The entry as configured.
        where: Name of the entry in errors.

    Returns:
        The values that are not null, converted to their types.

    Raises:
        UnknownNameError: If a key is unknown.
    """
    found = {}
    for key, value in entry.items():
        if key in LEGACY:
            continue
        if key not in ENTRY_KEYS:
            raise UnknownNameError(f"key under `{where}`:", key, ENTRY_KEYS)
        if value is not None:
            found[key] = ENTRY_KEYS[key](f"{where}.{key}", value)
    return found


def _texts_by_name(names: Sequence[str]) -> Check:
    """Build the check of a mapping from known names to texts or null."""

    def check(key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InputError(f"`{key}` must be a mapping `name: text`, got {value!r}.")
        for name, found in value.items():
            if name not in (*names, *OTHER_MEDIA):
                raise UnknownNameError(f"key under `{key}`:", name, names)
            if found is not None and not _is_position(found) and not (name in OTHER_MEDIA and found == ""):
                text(f"{key}.{name}", found)
        texts = {name: str(found) if _is_position(found) else found for name, found in value.items()}
        return {name: found for name, found in texts.items() if found not in {None, ""} or name == "task"}

    return check


def _is_position(value: Any) -> bool:
    """Tell whether a value is the position of a column, from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


PRIVATE_KEYS = ("dropout", "weight_decay", "penalty")
"""Keys for the private parameters of a task."""

ENTRY_KEYS: dict[str, Check] = {
    "file": text,
    "file_name": text,
    "eval_file": text,
    "target_file": text,
    "eval_target_file": text,
    "header": flag,
    "field": text,
    "eval_field": text,
    "weight": number(0),
    "hf_hub_url": text,
    "subset": text,
    "split": text,
    "folder": text,
    "formatting": choice(*FORMATS),
    "columns": _texts_by_name(COLUMNS),
    "tags": _texts_by_name(TAGS),
    "num_samples": whole(1),
    "task": text,
    "ratio": number(0, 1),
    "role": choice(*ROLES),
    "group": text,
    "template": choice(*TEMPLATES),
    "metrics": name_list,
    "instruction": text,
    "dropout": number(0, 1),
    "weight_decay": number(0),
    "penalty": number(0),
}
"""The check of each key of an entry: the fields of a LLaMA-Factory registry, and those of this project."""
