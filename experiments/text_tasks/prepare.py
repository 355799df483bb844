"""Turn SST-2, TREC, SUBJ and CR of a folder of sentence classification files into JSONL files of `{text, label}`.

python -m experiments.text_tasks.prepare ../shared/data/sentence_classification

Rows that are measured: `stsa.binary.test` and `TREC.test.all`, the first 600 (TREC has 500); of `subj.all` and
`custrev.all` the last 600 after `random.Random(0).shuffle`. The rest of these two, `stsa.binary.train` and
`TREC.train.all` are trained on, without rows whose text is empty (CR has some)
or among the measured ones.
"""

import argparse
import json
import random
from pathlib import Path

HELD_OUT = 600
SENTIMENT = ("negative", "positive")
KINDS = ("description", "entity", "abbreviation", "human", "location", "number")
LABELS = {"sst2": SENTIMENT, "trec": KINDS, "subj": ("subjective", "objective"), "cr": SENTIMENT}
"""Names of the classes 0, 1, ... of each task's files."""

Row = tuple[int, str]
"""Class and text."""


def read(path: Path) -> list[Row]:
    """Read a file of one row per line: class, blank, text."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    # split at line feeds alone: Latin-1 texts hold other characters that `splitlines` takes for line ends
    pairs = (line.split(" ", 1) for line in text.split("\n") if line.strip())
    return [(int(label), words.strip()) for label, words in pairs]


def divided(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Divide a file that has no test rows of its own."""
    random.Random(0).shuffle(rows)
    return rows[:-HELD_OUT], rows[-HELD_OUT:]


def tasks_of(source: Path) -> dict[str, tuple[list[Row], list[Row]]]:
    """Read the four tasks."""
    found = {
        "sst2": (read(source / "stsa.binary.train"), read(source / "stsa.binary.test")[:HELD_OUT]),
        "trec": (read(source / "TREC.train.all"), read(source / "TREC.test.all")[:HELD_OUT]),
        "subj": divided(read(source / "subj.all")),
        "cr": divided(read(source / "custrev.all")),
    }
    measured = {text for _, test in found.values() for _, text in test}
    return {
        task: ([row for row in train if row[1] and row[1] not in measured], test)
        for task, (train, test) in found.items()
    }


def prepare(source: Path, folder: Path) -> dict[str, tuple[int, int]]:
    """Write `{task}.train.jsonl` and `{task}.eval.jsonl` for the four tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for task, parts in tasks_of(source).items():
        for name, rows in zip(("train", "eval"), parts, strict=True):
            lines = (json.dumps({"text": text, "label": LABELS[task][i]}, ensure_ascii=False) for i, text in rows)
            (folder / f"{task}.{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        sizes[task] = (len(parts[0]), len(parts[1]))
    return sizes


def main() -> None:
    """Write the files and say how many rows there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with stsa.binary.*, TREC.*, subj.all and custrev.all")
    parser.add_argument("--to", type=Path, default=Path("outputs/text_tasks_data"), help="folder to write to")
    options = parser.parse_args()
    for task, (train, measured) in prepare(options.source, options.to).items():
        print(f"{task}: {train} rows to train on, {measured} held out")


if __name__ == "__main__":
    main()
