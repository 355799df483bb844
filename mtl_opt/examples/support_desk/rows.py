"""Rows of the three tasks of the support desk, from a seeded generator.

The tasks share their vocabulary and compete for the same weights: `product_qa` must find one fact in a sheet,
`complaint_core` must name a problem in the desk's own words, and `anger` must look past the problem at the tone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from mtl_opt.errors import UnknownNameError
from mtl_opt.examples.support_desk.messages import FEELINGS, draw_complaint, draw_mood
from mtl_opt.examples.support_desk.prose import draw_text
from mtl_opt.examples.support_desk.sheets import draw_question, draw_sheet

TRAIN_ROWS = {"product_qa": 3200, "complaint_core": 1800, "anger": 900}
"""Number of training rows of each task; very unequal on purpose."""

TASKS = tuple(TRAIN_ROWS)
"""Names of the tasks."""

EVAL_ROWS = 100
"""Number of held-out rows of each task."""

DATA_SEED = 20
"""Seed of the files that `write_files` writes."""

PRODUCT_INSTRUCTIONS = (
    "Answer the customer from the sheet.",
    "Use the product sheet.",
    "What does the sheet say?",
    "Look it up for the customer.",
)
COMPLAINT_INSTRUCTIONS = (
    "What is the core of this complaint?",
    "Sum up the problem of this customer.",
    "What went wrong here?",
    "Name the complaint in a few words.",
)
ANGER_INSTRUCTIONS = (
    "Is this customer angry?",
    "Does the writer sound angry?",
    "Angry customer, yes or no?",
    "Do we have an angry customer here?",
)


def generate_rows(task: str, num_rows: int, seed: int) -> list[dict[str, str]]:
    """Generate alpaca rows of one task with distinct inputs; more rows of the same seed begin with the same ones."""
    if task not in DRAW:
        raise UnknownNameError("task", task, TASKS)
    rng = Random(f"{task}/{seed}")
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < num_rows:
        instruction, text, answer = DRAW[task](rng)
        row = {"instruction": instruction, "input": text, "output": answer, "task_name": task}
        rows.setdefault(text, row)
    return list(rows.values())


def pretraining_texts(num: int, seed: int) -> list[str]:
    """Generate prose with the desk's words and products but none of its tasks, and without held-out messages."""
    rng = Random(f"pretraining/{seed}")
    held_out = {row["input"] for task in TASKS for row in generate_rows(task, EVAL_ROWS, DATA_SEED)}
    texts: list[str] = []
    while len(texts) < num:
        text = draw_text(rng)
        if text.split("\n")[0].removeprefix("Human: ") not in held_out:
            texts.append(text)
    return texts


def write_files(folder: Path) -> None:
    """Write `{task}.train.jsonl` and `{task}.eval.jsonl` of every task."""
    for task in TASKS:
        rows = generate_rows(task, TRAIN_ROWS[task] + EVAL_ROWS, DATA_SEED)
        for name, part in (("train", rows[EVAL_ROWS:]), ("eval", rows[:EVAL_ROWS])):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
            (folder / f"{task}.{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")


def product_row(rng: Random) -> tuple[str, str, str]:
    """Draw instruction, sheet with question, and answer."""
    sheet = draw_sheet(rng)
    question, answer = draw_question(rng, sheet)
    return rng.choice(PRODUCT_INSTRUCTIONS), f"{sheet.text}\n{question}", answer


def complaint_row(rng: Random) -> tuple[str, str, str]:
    """Draw instruction, complaint, and its core."""
    message, core = draw_complaint(rng)
    return rng.choice(COMPLAINT_INSTRUCTIONS), message, core


def anger_row(rng: Random) -> tuple[str, str, str]:
    """Draw instruction, message, and whether its writer is angry."""
    message, feeling = draw_mood(rng)
    return rng.choice(ANGER_INSTRUCTIONS), message, "yes" if feeling in FEELINGS else "no"


DRAW: dict[str, Callable[[Random], tuple[str, str, str]]] = {
    "product_qa": product_row,
    "complaint_core": complaint_row,
    "anger": anger_row,
}
"""Function that draws a row of each task."""
