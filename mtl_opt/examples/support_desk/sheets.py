"""Product sheets of the bank, questions about one of their facts, and sentences that state facts."""

from dataclasses import dataclass
from random import Random

from mtl_opt.examples.support_desk.products import ATTRIBUTES, CATALOGUE, product_names

REVERSE_QUESTIONS = (
    "Which product has {v} as {l}?",
    "Which of these says {l} {v}?",
    "I saw {l} {v}: which product was that?",
)
"""Questions whose answer is the product; `{l}` is the label of an attribute, `{v}` its value."""


@dataclass(frozen=True)
class Sheet:
    """Hold a product sheet.

    Attributes:
        facts: Values of the attributes on the sheet, in its order: `{product: {attribute: value}}`.
        shared: The attribute that all products of the sheet have, each with its own value.
        labels: Label of each attribute in this sheet.
        text: The sheet as written.
    """

    facts: dict[str, dict[str, str]]
    shared: str
    labels: dict[str, str]
    text: str


def draw_sheet(rng: Random) -> Sheet:
    """Draw a sheet of two or three products that have one attribute in common, with different values."""
    shared: list[str] = []
    while not shared:
        products = product_names(rng, rng.choice((2, 2, 3)))
        shared = [a for a in ATTRIBUTES if len({CATALOGUE[p].get(a) for p in products} - {None}) == len(products)]
    attribute = rng.choice(shared)
    labels = {name: rng.choice(a.labels) for name, a in ATTRIBUTES.items()}
    facts = {product: draw_facts(rng, product, attribute) for product in products}
    return Sheet(facts, attribute, labels, write_sheet(rng, facts, labels))


def draw_facts(rng: Random, product: str, attribute: str) -> dict[str, str]:
    """Draw two or three facts of a product, `attribute` among them."""
    others = [name for name in CATALOGUE[product] if name != attribute]
    names = [attribute, *rng.sample(others, rng.choice((1, 1, 2)))]
    rng.shuffle(names)
    return {name: CATALOGUE[product][name] for name in names}


def write_sheet(rng: Random, facts: dict[str, dict[str, str]], labels: dict[str, str]) -> str:
    """Format facts, one product per line."""
    after_name, between, end = rng.choice(
        ((": ", ", ", ""), (": ", "; ", ""), (" - ", ", ", "."), (" has ", " and ", "."))
    )
    lines = []
    for product, values in facts.items():
        lines.append(product + after_name + between.join(f"{labels[a]} {v}" for a, v in values.items()) + end)
    return "\n".join(lines)


def draw_question(rng: Random, sheet: Sheet) -> tuple[str, str]:
    """Draw a question about a fact of a sheet, or occasionally about the product of a fact, and its answer."""
    product = rng.choice(list(sheet.facts))
    values = sheet.facts[product]
    if rng.random() < 0.15:
        template = rng.choice(REVERSE_QUESTIONS)
        return template.format(v=values[sheet.shared], l=sheet.labels[sheet.shared]), product
    name = sheet.shared if rng.random() < 0.7 else rng.choice(list(values))
    return rng.choice(ATTRIBUTES[name].questions).format(p=product), values[name]


def state_facts(rng: Random, sheet: Sheet, number: int) -> list[str]:
    """Draw sentences that state facts of a sheet."""
    facts = [(product, name, value) for product, values in sheet.facts.items() for name, value in values.items()]
    chosen = rng.sample(facts, min(number, len(facts)))
    return [rng.choice(ATTRIBUTES[name].statements).format(p=product, v=value) for product, name, value in chosen]
