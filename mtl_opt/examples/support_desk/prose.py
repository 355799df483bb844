"""Prose of the support desk to pretrain on: its vocabulary, products and style, but none of its tasks."""

from random import Random

from mtl_opt.examples.support_desk.messages import PROBLEMS, draw_complaint, draw_cue, draw_mood
from mtl_opt.examples.support_desk.products import ATTRIBUTES, CATALOGUE
from mtl_opt.examples.support_desk.sheets import draw_sheet, state_facts


def draw_text(rng: Random) -> str:
    """Draw a product sheet with sentences about it, or a customer's message with the first words of a reply."""
    # The reply takes up the message but answers nothing and has the form of no task. Most texts are short: a tiny model
    # learns from a reply right after its cause long before it learns to look far back.
    draws = (sheet_text, question_text, problem_text, message_text, cue_text, tone_text)
    return rng.choices(draws, weights=(3, 2, 1, 6, 9, 8))[0](rng)


def sheet_text(rng: Random) -> str:
    """Draw a sheet and sentences that state some of its facts."""
    sheet = draw_sheet(rng)
    return f"{sheet.text}\n" + " ".join(state_facts(rng, sheet, 4))


def question_text(rng: Random) -> str:
    """Draw a question and a reply that names the attribute, without the answer."""
    product = rng.choice(list(CATALOGUE))
    attribute = ATTRIBUTES[rng.choice(list(CATALOGUE[product]))]
    question = rng.choice(attribute.questions).format(p=product)
    return exchange(question, f"{attribute.labels[0]} of the {product}, one moment.")


def problem_text(rng: Random) -> str:
    """Draw a problem and the desk's term for it."""
    problem = rng.choice(list(PROBLEMS))
    clause = rng.choice(PROBLEMS[problem]).format(p=rng.choice(list(CATALOGUE)))
    return exchange(f"{clause}.", f"{problem}, you mean to say.")


def message_text(rng: Random) -> str:
    """Draw a complaint and a reply that names problem and product, in either order."""
    message, core = draw_complaint(rng)
    kind, problem = core.split(" ", 1)
    replies = (f"{problem} on the {kind}, we look into it.", f"{kind}, {problem}? We look into it.")
    return exchange(message, rng.choice(replies))


def cue_text(rng: Random) -> str:
    """Draw one sentence of mood and a reply that names the feeling."""
    cue, feeling = draw_cue(rng, rng.random() < 0.5)
    return exchange(cue, f"{feeling} as you are, we listen.")


def tone_text(rng: Random) -> str:
    """Draw a message and a reply that names the feeling of its writer."""
    message, feeling = draw_mood(rng)
    return exchange(message, f"{feeling} as you are, we listen.")


def exchange(message: str, reply: str) -> str:
    """Format a message of a customer and the reply to it."""
    return f"Human: {message}\nAssistant: {reply}"
