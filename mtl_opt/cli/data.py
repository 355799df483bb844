"""`mtl-opt data validate`, `stats`, `plan` and `show`: what the data of a run or a comparison look like."""

import argparse
from typing import Any

from mtl_opt.cli.common import JSON, add_config, add_skip_bad_rows, print_json, print_table, read_settings
from mtl_opt.errors import InputError


def add_data(verbs: Any) -> None:
    """Add `data` and the verbs below it to the command line."""
    data = verbs.add_parser("data", help="look at the data of a configuration")
    below = data.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, run, text in (
        ("validate", _validate, "read every row; exit code 2 if one is bad"),
        ("stats", _stats, "what the tasks look like"),
        ("plan", _plan, "rows and tokens of every task that the first steps draw"),
        ("show", _show, "rows of a task as the model sees them; what is learnt stands in ⟦ ⟧"),
    ):
        verb = below.add_parser(name, help=text)
        add_config(verb)
        add_skip_bad_rows(verb)
        verb.add_argument("--json", action="store_true", help=JSON)
        verb.set_defaults(run=run)
        if name == "plan":
            verb.add_argument("--steps", type=int, default=100, help="steps to draw (100)")
        if name == "show":
            verb.add_argument("--task", required=True, help="name of the task")
            verb.add_argument("--rows", type=int, default=1, help="rows to show (1)")


def _read_config(options: argparse.Namespace) -> Any:
    """Read the configuration of a run or a comparison; `output_dir`, which only training needs, may be missing."""
    from mtl_opt.training import train_config
    from mtl_opt.training.config.comparison import compare_config, is_comparison

    settings = {"output_dir": "outputs", **read_settings(options)}
    return train_config(compare_config(settings)[1] if is_comparison(settings) else settings)


def _validate(options: argparse.Namespace) -> None:
    """Print every bad row, and notes."""
    from mtl_opt.training.preview.data import validate

    problems, notes = validate(_read_config(options))
    if options.json:
        print_json({"problems": problems, "notes": notes})
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

    found = stats(_read_config(options))
    if options.json:
        print_json(found)
        return
    tasks = found["tasks"]
    heads = ("rows", "eval_rows", "mean", "p95", "max", "shortened", "answers_cut", "labels", "label_entropy",
             "exact_duplicates", "near_duplicates", "held_out_trained",
             "held_out_near", "distinct_2", "epochs")  # fmt: skip
    rows = [[task, *(entry["tokens"].get(head, entry.get(head)) for head in heads)] for task, entry in tasks.items()]
    print_table(["task", *heads], rows)
    read = [[task, ", ".join(e["formats"]), ", ".join(e["not_read"]) or "-"] for task, e in tasks.items()]
    print("\nHow the rows are read:")
    print_table(["task", "formats", "columns not read"], read)
    mixings = list(next(iter(tasks.values()))["shares"])
    pull = f"Pull at the shared parameters (loss_reduction: {found['loss_reduction']}, and the tasks' weights)"
    for key, title in (("shares", "Share of the rows"), ("pull", pull)):
        print(f"\n{title} under every mixing (this run: {found['mixing']}, {found['steps']} steps):")
        table = {task: ["-" if part is None else part for part in e[key].values()] for task, e in tasks.items()}
        print_table(["task", *mixings], [[task, *parts] for task, parts in table.items()])


def _plan(options: argparse.Namespace) -> None:
    """Print what the sampler delivers."""
    from mtl_opt.training.preview.data import plan_draws

    if options.steps < 1:
        raise InputError(f"`--steps` must be at least 1, got {options.steps}.")
    found = plan_draws(_read_config(options), options.steps)
    if options.json:
        print_json(found)
        return
    rows = [
        [
            task, e["rows"], e["tokens"], f"{e['share']:.4f}", f"{e['pull']:.4f}",
            "-" if e["epochs"] is None else f"{e['epochs']:.3f}",
        ]
        for task, e in found["tasks"].items()
    ]  # fmt: skip
    print_table(["task", "rows", "tokens", "share", "pull", "epochs"], rows)


def _show(options: argparse.Namespace) -> None:
    """Print rows as the model sees them."""
    from mtl_opt.training.preview.data import show

    rows = show(_read_config(options), options.task, options.rows)
    if options.json:
        print_json({"rows": rows})
        return
    for row in rows:
        learnt = sum(row["learnt"])
        cut = ", shortened" if row["shortened"] else ""
        print(f"{row['place']}: {len(row['input_ids'])} tokens, {learnt} learnt{cut}\n{row['text']}\n")
