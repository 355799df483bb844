"""Products of an invented bank: their facts, and the ways to name, ask for and state a fact."""

from dataclasses import dataclass
from random import Random

LINES = ("Cedar", "Harbor", "Maple", "Summit", "River", "Falcon")
"""First word of a product's name; the second word is its kind."""


@dataclass(frozen=True)
class Attribute:
    """Describe one attribute of products.

    Attributes:
        values: Possible values, which are also the answers to a question.
        labels: Names of the attribute in a sheet.
        questions: Questions about it; `{p}` is the product.
        statements: Sentences that state it; `{p}` is the product, `{v}` the value.
    """

    values: tuple[str, ...]
    labels: tuple[str, ...]
    questions: tuple[str, ...]
    statements: tuple[str, ...]


ATTRIBUTES = {
    "fee": Attribute(
        values=tuple(f"{n} euros" for n in range(2, 10)),
        labels=("monthly fee", "fee per month", "monthly price"),
        questions=(
            "What do I pay each month for the {p}?",
            "How much does the {p} cost per month?",
            "What is the monthly fee of the {p}?",
            "Every month, what will you take for the {p}?",
            "I might get the {p}. What is the price a month?",
        ),
        statements=(
            "For the {p} you pay each month {v}.",
            "The monthly fee of the {p} is {v}.",
            "Per month, the {p} costs {v}.",
        ),
    ),
    "bonus": Attribute(
        values=tuple(f"{n} euros" for n in (10, 15, 20, 25, 30, 40, 50, 75)),
        labels=("welcome bonus", "starting gift", "bonus"),
        questions=(
            "What do you give me for taking the {p}?",
            "How big is the welcome bonus of the {p}?",
            "Is there a gift with the {p}, and how much?",
            "What bonus do new customers get on the {p}?",
        ),
        statements=(
            "As a welcome, new customers of the {p} get {v}.",
            "The bonus of the {p} is {v}.",
            "Take the {p} and we give you a gift of {v}.",
        ),
    ),
    "limit": Attribute(
        values=tuple(f"{n} euros" for n in (500, 1000, 1500, 2000, 3000, 5000, 8000, 9000)),
        labels=("limit", "upper limit", "most you can use"),
        questions=(
            "Up to how much can I use with the {p}?",
            "What is the limit of the {p}?",
            "How high does the {p} go?",
            "What is the most I can have on the {p}?",
        ),
        statements=(
            "The limit of the {p} is {v}.",
            "With the {p} you can use up to {v}.",
            "The most anyone can have on the {p} is {v}.",
        ),
    ),
    "rate": Attribute(
        values=tuple(f"{n} percent" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9)),
        labels=("rate", "interest rate", "yearly interest"),
        questions=(
            "What interest comes with the {p}?",
            "At what rate does the {p} run?",
            "How many percent a year on the {p}?",
            "Tell me the rate of the {p}.",
        ),
        statements=(
            "The interest rate of the {p} is {v}.",
            "Over a year the {p} has interest of {v}.",
            "The {p} runs at a rate of {v}.",
        ),
    ),
    "notice": Attribute(
        values=tuple(f"{n} days" for n in (7, 10, 14, 21, 28, 30, 45, 60)),
        labels=("notice", "notice period", "time to cancel"),
        questions=(
            "How long before the end must I cancel the {p}?",
            "What is the notice period of the {p}?",
            "If I want to leave the {p}, how long do I wait?",
            "How soon can I get out of the {p}?",
        ),
        statements=(
            "To cancel the {p} you give notice of {v}.",
            "The notice period of the {p} is {v}.",
            "Whoever wants to leave the {p} waits {v}.",
        ),
    ),
    "term": Attribute(
        values=tuple(f"{n} months" for n in (6, 9, 12, 18, 24, 36, 48, 60)),
        labels=("term", "duration", "runs for"),
        questions=(
            "How long does the {p} last?",
            "What is the term of the {p}?",
            "For how long would I be tied to the {p}?",
            "After what time does the {p} end?",
        ),
        statements=(
            "The term of the {p} is {v}.",
            "The {p} ends after {v}.",
            "You are tied to the {p} for {v}.",
        ),
    ),
    "channel": Attribute(
        values=("online", "by phone", "at a branch", "in the app", "by post", "at the airport"),
        labels=("sold", "available", "to be had"),
        questions=(
            "Where do I get the {p}?",
            "How can I sign up for the {p}?",
            "In what way is the {p} sold?",
            "I would like the {p}. Where do you offer it?",
        ),
        statements=(
            "Customers get the {p} {v}.",
            "The {p} is sold {v}.",
            "You can sign up for the {p} {v}.",
        ),
    ),
    "age": Attribute(
        values=tuple(f"{n} years" for n in (12, 14, 16, 18, 21, 25, 27, 30)),
        labels=("minimum age", "age from", "youngest holder"),
        questions=(
            "How old must I be for the {p}?",
            "What is the minimum age for the {p}?",
            "From what age may my daughter hold the {p}?",
            "Is there an age for the {p}, and which?",
        ),
        statements=(
            "To hold the {p} you must be at least {v}.",
            "The minimum age for the {p} is {v}.",
            "The {p} is for anyone from the age of {v}.",
        ),
    ),
}
"""All attributes of products by name."""

KINDS = {
    "card": ("fee", "bonus", "limit", "channel", "age", "notice"),
    "account": ("fee", "bonus", "rate", "notice", "channel", "age"),
    "loan": ("rate", "limit", "term", "channel", "age", "fee"),
    "policy": ("fee", "bonus", "notice", "term", "limit", "channel"),
    "fund": ("fee", "rate", "term", "age", "bonus", "notice"),
}
"""Kinds of products, and the attributes of each."""


def build_catalogue(rng: Random) -> dict[str, dict[str, str]]:
    """Draw the bank's products and their facts; the names are easy to confuse."""
    kinds = list(KINDS)
    names = [f"{line} {kinds[(i + j) % len(kinds)]}" for i, line in enumerate(LINES) for j in (0, 2)]
    return {name: {a: rng.choice(ATTRIBUTES[a].values) for a in KINDS[product_kind(name)]} for name in names}


def product_names(rng: Random, number: int) -> list[str]:
    """Draw up to `number` products; the others share line or kind with the first one drawn."""
    first = rng.choice(list(CATALOGUE))
    near = [p for p in CATALOGUE if p != first and set(p.split()) & set(first.split())]
    names = [first, *rng.sample(near, min(number - 1, len(near)))]
    rng.shuffle(names)
    return names


def product_kind(product: str) -> str:
    """Return the kind in a product's name."""
    return product.rsplit(" ", 1)[1]


CATALOGUE = build_catalogue(Random("catalogue"))
"""All products with their facts; the same in every row and text, so that a model can learn them."""
