"""The embedded job: three tasks of a support desk of an invented bank, made by a seeded generator.

The tasks share their words and pull on the same weights: `product_qa` must copy a fact from a sheet, `complaint_core`
must not copy but name a problem in the desk's own words, and `anger` must look past the problem at the tone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from mtl_opt.data.support_desk_messages import FEELINGS, PROBLEMS, draw_complaint, draw_cue, draw_mood
from mtl_opt.data.support_desk_products import ATTRIBUTES, CATALOGUE, draw_question, draw_sheet, state_facts
from mtl_opt.errors import UnknownNameError

TRAIN_ROWS = {"product_qa": 3200, "complaint_core": 1800, "anger": 900}
"""Rows to learn from; very different sizes on purpose."""

TASKS = tuple(TRAIN_ROWS)
"""Names of the tasks."""

EVAL_ROWS = 100
"""Held-out rows of each task."""

DATA_SEED = 20
"""The seed of the files that `write` makes."""

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
REPLIES = (
    "{c}, that must not happen to your {k}.",
    "{c} again, we will check the {k}.",
    "{k} trouble, {c} as it seems.",
    "your {k} is {c}, we are sorry.",
)
HEARD = ("{l} of the {p}, one moment please.", "the {l}, you mean the {p}.", "{p}, and you want to know the {l}.")
ANGRY_REPLIES = ("please do not be angry with us.", "yes, you are upset, we hear you.", "angry words, we understand.")
CALM_REPLIES = ("good to hear that you are calm.", "no bad feelings, how nice.", "happy to read this.")


def generate(task: str, num_rows: int, seed: int) -> list[dict[str, str]]:
    """Make rows of one task; no two of them share a prompt.

    Args:
        task: One of `TASKS`.
        num_rows: How many rows.
        seed: The same seed gives the same rows.

    Returns:
        Alpaca rows `{instruction, input, output, task_name}`.

    Raises:
        InputError: If the task is unknown.
    """
    if task not in DRAW:
        raise UnknownNameError("task", task, TASKS)
    rng = Random(f"{task}/{seed}")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    while len(rows) < num_rows:
        instruction, text, answer = DRAW[task](rng)
        row = {"instruction": instruction, "input": text, "output": answer, "task_name": task}
        rows.setdefault((instruction, text), row)
    return list(rows.values())


def pretraining_texts(num: int, seed: int) -> list[str]:
    """Make prose of the desk, so that a model knows its words and products but none of the tasks.

    Args:
        num: How many texts.
        seed: The same seed gives the same texts.

    Returns:
        Product sheets with sentences on their facts, and messages of customers with the reply of an agent.
    """
    rng = Random(f"pretraining/{seed}")
    draws = (product_text, problem_text, message_text, cue_text, tone_text, question_text)
    return [rng.choices(draws, (4, 1, 6, 5, 6, 3))[0](rng) for _ in range(num)]


def write(folder: Path) -> None:
    """Write `{task}.train.jsonl` and `{task}.eval.jsonl` of every task.

    Args:
        folder: An existing folder.
    """
    for task in TASKS:
        rows = generate(task, TRAIN_ROWS[task] + EVAL_ROWS, DATA_SEED)
        for name, part in (("train", rows[EVAL_ROWS:]), ("eval", rows[:EVAL_ROWS])):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
            (folder / f"{task}.{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")


def product_row(rng: Random) -> tuple[str, str, str]:
    """Draw a question about a product sheet.

    Args:
        rng: Source of randomness.

    Returns:
        Instruction, input and output.
    """
    sheet = draw_sheet(rng)
    question, answer = draw_question(rng, sheet)
    return rng.choice(PRODUCT_INSTRUCTIONS), f"{sheet.text}\n{question}", answer


def complaint_row(rng: Random) -> tuple[str, str, str]:
    """Draw a complaint and its core.

    Args:
        rng: Source of randomness.

    Returns:
        Instruction, input and output.
    """
    message, core = draw_complaint(rng)
    return rng.choice(COMPLAINT_INSTRUCTIONS), message, core


def anger_row(rng: Random) -> tuple[str, str, str]:
    """Draw a message and whether its writer is angry.

    Args:
        rng: Source of randomness.

    Returns:
        Instruction, input and output.
    """
    message, feeling = draw_mood(rng)
    return rng.choice(ANGER_INSTRUCTIONS), message, "yes" if feeling in FEELINGS else "no"


DRAW: dict[str, Callable[[Random], tuple[str, str, str]]] = {
    "product_qa": product_row,
    "complaint_core": complaint_row,
    "anger": anger_row,
}
"""What draws a row of each task."""


def product_text(rng: Random) -> str:
    """Write a sheet and sentences that state some of its facts.

    Args:
        rng: Source of randomness.

    Returns:
        The text.
    """
    sheet = draw_sheet(rng)
    return f"{sheet.text}\n" + " ".join(state_facts(rng, sheet, 4))


def problem_text(rng: Random) -> str:
    name = rng.choice(list(PROBLEMS))
    clause = rng.choice(PROBLEMS[name]).format(p=rng.choice(list(CATALOGUE)))
    return f"Human: {clause}.\nAssistant: {name}, you mean to say."


def message_text(rng: Random) -> str:
    message, core = draw_complaint(rng)
    kind, problem = core.split(" ", 1)
    return f"Human: {message}\nAssistant: {problem} on the {kind}, we look into it."


def cue_text(rng: Random) -> str:
    cue, feeling = draw_cue(rng)
    return f"Human: {cue}\nAssistant: {feeling} as you are, we listen."


def tone_text(rng: Random) -> str:
    message, feeling = draw_mood(rng)
    return f"Human: {message}\nAssistant: {feeling} as you are, we listen."


def question_text(rng: Random) -> str:
    product = rng.choice(list(CATALOGUE))
    attribute = ATTRIBUTES[rng.choice(list(CATALOGUE[product]))]
    question = rng.choice(attribute.questions).format(p=product)
    return f"Human: {question}\nAssistant: {attribute.labels[0]} of the {product}, one moment."
