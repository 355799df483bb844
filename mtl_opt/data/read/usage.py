"""What of a source is read: the formats of its records, and the columns that nothing reads."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

LABEL_NAMES = (
    "category", "class", "intent", "sentiment", "target", "topic", "type", "tag", "y", "类别", "分类", "标签", "意图",
)  # fmt: skip
"""Names of columns that probably hold a label."""


class WatchedRecord(Mapping[str, Any]):
    """Remember which keys of a record are read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values_ = values
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __contains__(self, key: object) -> bool:
        return key in self.values_


class Usage:
    """Count the rows of a source by the columns that are not read; only the first row of a set of keys is watched."""

    def __init__(self) -> None:
        self.formats: dict[str, None] = {}
        self.inferred = False
        self.unread: dict[tuple[str, ...], list[str]] = {}
        self.rows: Counter[tuple[str, ...]] = Counter()
        self.drawn: tuple[int, int] | None = None
        self.joined = 0

    def watch(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Watch a record whose keys are new."""
        return values if tuple(values) in self.unread else WatchedRecord(values)

    def add(self, values: Mapping[str, Any], form: str) -> None:
        """Count a record that was converted."""
        keys = tuple(values)
        if isinstance(values, WatchedRecord):
            self.unread[keys] = [str(key) for key in keys if key not in values.read]
            self.formats[form] = None
        self.rows[keys] += 1

    def facts(self) -> dict[str, Any]:
        """Return formats, number of rows that lack a reader by column, and the draw, as plain values."""
        columns: Counter[str] = Counter()
        for keys, number in self.rows.items():
            columns.update(dict.fromkeys(self.unread[keys], number))
        return {
            "formats": list(self.formats),
            "inferred": self.inferred,
            "unread": dict(columns),
            "rows": self.rows.total(),
            "drawn": self.drawn,
            "joined": self.joined,
        }


def usage_sentences(facts: Mapping[str, Any], path: str, task: str) -> tuple[list[str], list[str]]:
    """Say how a source is read, as notes, and where a label is probably ignored, as warnings."""
    unread, rows = facts["unread"], facts["rows"]
    columns = [
        f"`{name}`" + ("" if number == rows else f" ({number} of {rows} rows)") for name, number in unread.items()
    ]
    left = f"; not read: {', '.join(columns)}" if columns else ""
    notes = [f"{task}: `{path}` is read as {', '.join(facts['formats'])}{left}."]
    if facts.get("joined"):
        notes.append(
            f"{task}: in {facts['joined']} of the {rows} rows of `{path}` questions follow each other, and are joined."
        )
    if facts.get("blocks"):
        notes.append(f"{task}: long texts of `{path}` are cut into blocks of `cutoff_len`: {facts['blocks']} rows.")
    if facts["drawn"] is not None:
        some, every = facts["drawn"]
        notes.append(
            f"{task}: {some} of the {every} rows of `{path}` are taken (`max_samples`, `num_samples`), drawn at random "
            "but the same in every run, before any is held out."
        )
    if not (facts["inferred"] and "text" in facts["formats"] and unread):
        return notes, []
    label = next((name for name in unread if name.lower() in LABEL_NAMES), next(iter(unread)))
    return notes, [
        f"{task}: `{path}` is learnt as plain text, without its column `{label}`; `formatting: classification` with "
        f"`columns: {{text: text, label: {label}}}` learns that as the label."
    ]
