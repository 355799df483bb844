"""`mtl-opt data validate | stats | plan | show` and `mtl-opt list mixing`: arguments in, tables or JSON out."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from mtl_opt.errors import InputError

SKIP = "leave bad rows out, count and list them"


def add_data_verbs(verbs: Any) -> None:
    """Describe the verbs below `mtl-opt data`."""
    data = verbs.add_parser("data", help="look at the data of a configuration")
    below = data.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, run, text in (
        ("validate", _validate, "read every row; exit code 2 if one is bad"),
        ("stats", _stats, "what the tasks look like"),
        ("plan", _plan, "rows and tokens of every task that the first steps draw"),
        ("show", _show, "rows of a task as the model sees them; what is learnt stands in ⟦ ⟧"),
    ):
        verb = below.add_parser(name, help=text)
        verb.add_argument("config", help="YAML file")
        verb.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
        verb.add_argument("--skip_bad_rows", action="store_true", help=SKIP)
        verb.add_argument("--json", action="store_true", help="one JSON object on stdout")
        verb.set_defaults(run=run)
        if name == "plan":
            verb.add_argument("--steps", type=int, default=100, help="steps to draw (100)")
        if name == "show":
            verb.add_argument("--task", required=True, help="name of the task")
            verb.add_argument("--rows", type=int, default=1, help="rows to show (1)")


def overrides_of(options: argparse.Namespace) -> list[str]:
    """Collect the settings of the command line."""
    return [*options.overrides, *(["skip_bad_rows=true"] if options.skip_bad_rows else [])]


def _config(options: argparse.Namespace) -> Any:
    """Read the configuration; what only training needs may be missing."""
    from mtl_opt.training import read_yaml, train_config
    from mtl_opt.training.config.comparison import compare_config, is_comparison

    settings = {"output_dir": "outputs", **read_yaml(options.config, overrides_of(options))}
    return train_config(compare_config(settings)[1] if is_comparison(settings) else settings)


def _validate(options: argparse.Namespace) -> None:
    """Print every bad row, and notes."""
    from mtl_opt.training.preview.data import validate

    problems, notes = validate(_config(options))
    if options.json:
        print(json.dumps({"problems": problems, "notes": notes}, ensure_ascii=False))
    else:
        for line in (*problems, *notes):
            print(line)
    if problems:
        raise InputError(f"{len(problems)} problem{'s' * (len(problems) != 1)} found in the data.")
    if not options.json:
        print("All rows are good.")


def _stats(options: argparse.Namespace) -> None:
    """Print two tables: the rows of the tasks, and their shares."""
    from mtl_opt.training.preview.data import stats

    found = stats(_config(options))
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    tasks = found["tasks"]
    heads = ("rows", "eval_rows", "mean", "p95", "max", "shortened", "answers_cut", "labels", "label_entropy",
             "exact_duplicates", "near_duplicates", "distinct_2", "epochs")  # fmt: skip
    rows = [[task, *(entry["tokens"].get(head, entry.get(head)) for head in heads)] for task, entry in tasks.items()]
    print_table(["task", *heads], rows)
    print(f"\nShare of the rows under every mixing (this run: {found['mixing']}, {found['steps']} steps):")
    mixings = list(next(iter(tasks.values()))["shares"])
    print_table(
        ["task", *mixings],
        [[task, *("-" if share is None else share for share in e["shares"].values())] for task, e in tasks.items()],
    )


def _plan(options: argparse.Namespace) -> None:
    """Print what the sampler delivers."""
    from mtl_opt.training.preview.data import plan_draws

    if options.steps < 1:
        raise InputError(f"`--steps` must be at least 1, got {options.steps}.")
    found = plan_draws(_config(options), options.steps)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    rows = [
        [task, e["rows"], e["tokens"], f"{e['share']:.4f}", "-" if e["epochs"] is None else f"{e['epochs']:.3f}"]
        for task, e in found["tasks"].items()
    ]
    print_table(["task", "rows", "tokens", "share", "epochs"], rows)


def _show(options: argparse.Namespace) -> None:
    """Print rows as the model sees them."""
    from mtl_opt.training.preview.data import show

    rows = show(_config(options), options.task, options.rows)
    if options.json:
        print(json.dumps({"rows": rows}, ensure_ascii=False))
        return
    for row in rows:
        learnt = sum(row["learnt"])
        cut = ", shortened" if row["shortened"] else ""
        print(f"{row['place']}: {len(row['input_ids'])} tokens, {learnt} learnt{cut}\n{row['text']}\n")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns; numbers on the right."""
    from unicodedata import east_asian_width

    def width(text: str) -> int:
        return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)

    cells = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(width(line[i]) for line in cells) for i in range(len(heads))]
    numeric = [all(isinstance(row[i], int | float) or row[i] == "-" for row in rows) for i in range(len(heads))]
    for line in cells:
        padded = []
        for cell, size, right in zip(line, widths, numeric, strict=True):
            blank = " " * (size - width(cell))
            padded.append(blank + cell if right else cell + blank)
        print("  ".join(padded).rstrip())
