"""Messages of the bank's customers: what went wrong, what went well, and in which mood they write."""

from random import Random

from mtl_opt.examples.support_desk.products import product_kind, product_names

PROBLEMS = {
    "charged twice": (
        "the same amount came off my {p} two times",
        "one purchase is listed double on my {p}",
        "you took the money for my {p} again although I had paid",
        "my {p} shows a second booking for a single payment",
        "I paid once and yet my {p} was billed again",
    ),
    "fee too high": (
        "I pay far more for my {p} than I was told",
        "nobody warned me that my {p} would get so expensive",
        "the price of my {p} has gone through the roof",
        "my {p} eats more money each month than we agreed",
        "what you take for my {p} is beyond all reason",
    ),
    "transfer late": (
        "the money I sent from my {p} has still not arrived",
        "what I wired with my {p} on Monday is not there yet",
        "a payment out of my {p} takes days longer than promised",
        "my landlord still waits for the sum sent from my {p}",
        "sending money with my {p} is slower than a snail",
    ),
    "blocked": (
        "my {p} is locked and I cannot get at my money",
        "someone shut down my {p} without a word",
        "my {p} was frozen while I stood at the till",
        "all of a sudden my {p} is closed to me",
        "my {p} refuses everything I try to do",
    ),
    "not delivered": (
        "the letter with my new {p} never came",
        "I ordered the {p} weeks ago and my mailbox is empty",
        "the papers for my {p} did not reach me",
        "the post brought everything except my {p}",
        "I still wait for the envelope with my {p}",
    ),
    "login fails": (
        "I cannot get into my {p} online any more",
        "the site rejects my password for my {p}",
        "the app throws me out when I open my {p}",
        "I am locked out of the page of my {p}",
        "whatever I type, the screen of my {p} says no",
    ),
    "wrong rate": (
        "the percent on my {p} are not those we signed",
        "my {p} has another interest than the contract says",
        "you work out the interest of my {p} with a false number",
        "I was promised better interest for my {p}",
        "the figure for the interest on my {p} is off",
    ),
    "not cancelled": (
        "I ended my {p} in spring and it still runs",
        "you ignore that I want to leave my {p}",
        "I gave notice for my {p} and nothing happened",
        "my {p} goes on although I quit it long ago",
        "I closed my {p} in writing, and it is still open",
    ),
    "unknown payment": (
        "somebody bought things with my {p} and it was not me",
        "there is a booking on my {p} that I never made",
        "a shop I have never seen took money from my {p}",
        "I do not recognise one line on my {p}",
        "a stranger seems to spend from my {p}",
    ),
    "limit too low": (
        "I cannot spend as much as I need with my {p}",
        "my {p} stops me after a small sum",
        "the cap on my {p} is far too tight for me",
        "with my {p} I could not even pay the hotel",
        "my {p} should let me use more than it does",
    ),
}
"""Problems in the desk's words, each with its descriptions in a customer's words; `{p}` is the product."""

PLEASANT = (
    "my new {p} came in two days",
    "the app for my {p} works like a charm",
    "you raised the limit of my {p} at once",
    "my {p} saved my holiday",
    "the money from my {p} was there within an hour",
    "your colleague explained my {p} so well",
    "my son got his first {p} today",
    "you gave me a bonus on my {p}",
)
"""Pleasant events; `{p}` is the product."""

OPENERS = (
    "Hello there.", "Good morning.", "Hi, me again.", "Dear team at the desk.", "Good evening to you all.",
    "Hello, a short note.",
    "I hope you are well.", "Sorry for writing so late.", "I have been with you for years.", "My name is on file.",
)  # fmt: skip
LEADS = (
    "It turns out that {c}.", "Since last week {c}.", "Yesterday I saw that {c}.", "You should know that {c}.",
    "Once more {c}.", "As I said on the phone, {c}.", "Believe it or not, {c}.", "To be short: {c}.", "Now {c}.",
)  # fmt: skip
CHATTER = (
    "It rained all day here.", "My cat says hello.", "We move house in May.", "I was on holiday until Sunday.",
    "My sister banks with you too.", "I work nights, so please call late.", "The queue at the branch was long.",
    "The new logo looks nice.", "My phone is old.", "I read your letter with care.", "By the way, my {q} works fine.",
    "With my {q} all is well.", "I have no trouble with my {q}.", "My wife likes her {q}.", "I also hold a {q}.",
)  # fmt: skip
CLOSERS = (
    "Please have a look.", "Thanks.", "Kind regards.", "Waiting for your answer.", "Please call me.", "Bye.",
    "What can you do?", "Let me know.", "Have a good day.", "I count on you.",
)  # fmt: skip

FEELINGS = {
    "angry": "calm",
    "furious": "delighted",
    "upset": "happy",
    "annoyed": "pleased",
}
"""Opposite of every bad feeling."""

PLAIN = ("I am really {f}", "I am so {f}", "By now I am {f}", "All this makes me {f}", "I must say I am {f}")
NEGATED = ("I am not {f}", "I am no longer {f}", "I am far from {f}", "I am anything but {f}", "I cannot say I am {f}")
CONTRASTS = (
    "My husband is {other}, but I am {own}",
    "I was {other} at first, now I am {own}",
    "I am {own}, even if your clerk sounded {other}",
    "Others would be {other}, I am {own}",
)

ANGRY_PHRASES = (
    "With all due respect, this is a disgrace", "Thank you for wasting my whole afternoon",
    "How kind of you to hang up on me", "Well done, you have lost a customer", "I have had enough of you",
    "My lawyer will enjoy this", "Spare me your excuses this time", "Great job, as useless as ever",
    "Kindly stop treating me like a fool", "What a joke of a bank",
)  # fmt: skip
CALM_PHRASES = (
    "No hard feelings", "Such things happen", "There is no hurry at all", "I only want to understand it",
    "Do not worry about it", "What a great bank", "You made my day", "I was about to shout, and then you solved it",
    "This is insane, so fast", "It is no disgrace to be late",
)  # fmt: skip


def draw_complaint(rng: Random) -> tuple[str, str]:
    """Draw a complaint with chatter around it, and its core: kind of product and problem."""
    product, other = product_names(rng, 2)
    problem = rng.choice(sorted(PROBLEMS))
    core = rng.choice(LEADS).format(c=rng.choice(PROBLEMS[problem]).format(p=product))
    around = [text.format(q=other) for text in rng.sample(CHATTER, rng.choice((0, 1, 1)))]
    body = [core, *around]
    rng.shuffle(body)
    message = [*maybe(rng, OPENERS), *body, *maybe(rng, CLOSERS)]
    return " ".join(message), f"{product_kind(product)} {problem}"


def draw_mood(rng: Random) -> tuple[str, str]:
    """Draw a message whose mood does not follow from what happened, and the feeling of its writer."""
    angry = rng.random() < 0.5
    cue, feeling = draw_cue(rng, angry)
    beside = draw_cue(rng, angry)[0] if rng.random() < 0.5 else draw_event(rng, 0.75 if angry else 0.55)
    body = [cue, beside]
    rng.shuffle(body)
    return " ".join([*maybe(rng, OPENERS), *body, *maybe(rng, CLOSERS)]), feeling


def draw_event(rng: Random, bad: float) -> str:
    """Draw an event without any mood; a problem with probability `bad`."""
    events = PROBLEMS[rng.choice(sorted(PROBLEMS))] if rng.random() < bad else PLEASANT
    return rng.choice(LEADS).format(c=rng.choice(events).format(p=product_names(rng, 1)[0]))


def draw_cue(rng: Random, angry: bool) -> tuple[str, str]:
    """Draw a sentence that shows the mood (by a feeling, its denial, a contrast, or indirectly), and the feeling."""
    feeling, opposite = rng.choice(list(FEELINGS.items()))
    if not angry:
        feeling, opposite = opposite, feeling
    way = rng.choices(("plain", "negated", "contrast", "phrase"), (10, 3, 1, 6))[0]
    if way == "plain":
        text = rng.choice(PLAIN).format(f=feeling)
    elif way == "negated":
        text = rng.choice(NEGATED).format(f=opposite)
    elif way == "contrast":
        text = rng.choice(CONTRASTS).format(own=feeling, other=opposite)
    else:
        text, feeling = (rng.choice(ANGRY_PHRASES), "angry") if angry else (rng.choice(CALM_PHRASES), "calm")
    return text + rng.choice((".", ".", "!", "!!")), feeling


def maybe(rng: Random, sentences: tuple[str, ...]) -> list[str]:
    """Draw one sentence with probability 0.33."""
    return [rng.choice(sentences)] if rng.random() < 0.33 else []
