"""Write `docs/combiners.md` from the registry and the docstrings, and `docs/llamafactory.md` from the tables of keys.

python docs/build.py            # writes the pages
python docs/build.py --check    # exits 1 where a page is stale
"""

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from mtl_opt.combiners import COMBINERS, Combiner, Denoised, Every, NormMatched, Scoped, Smoothed

sys.path.insert(0, str(Path(__file__).parent))
from llamafactory_page import keys_page

PAGE = Path(__file__).with_name("combiners.md")
KEYS_PAGE = Path(__file__).with_name("llamafactory.md")

WRAPPERS: dict[str, type[Combiner]] = {
    "scope: layer": Scoped,
    "denoised: 100": Denoised,
    "smoothed: 0.9": Smoothed,
    "every: 5": Every,
    "norm_matched: true": NormMatched,
}
"""How a configuration asks for a wrapper, the innermost first."""

LISTS = ("Args", "Raises", "References", "Examples")
"""Sections of a docstring that are no paragraphs; `Examples` is last."""

NEEDS = {
    "losses": "the losses of the step",
    "gramian": "the Gramian `[tasks, tasks]` of the task gradients",
    "halves": "the products `J1 J2ᵀ` of the gradients of two halves of every task's rows",
    "window": "the Gramian of a window of steps",
    "jacobian": "the task gradients `[tasks, params]` themselves",
}
"""What `requires` means."""

OBSERVES = {
    "batch": ", and those of the same batch after it",
    "validation": ", and those of held-out rows now and then",
}
"""What `observes` adds to it."""

INTRODUCTION = """\
# Combiners

Written by `python docs/build.py` from the registry and the docstrings; do not edit.

A combiner merges the gradients of several tasks into one update. In a configuration:
```yaml
combiner: nash_mtl
combiner_args: {max_norm: 1.0}
```
and in Python:
```python
from mtl_opt import NashMTL

combined = NashMTL(max_norm=1.0)(jacobian)  # [tasks, params] -> [params]
weights = NashMTL(max_norm=1.0).weights(gramian)  # [tasks, tasks] -> [tasks]
```
Below, $g_i$ is the gradient of task $i$ over the shared parameters, $J$ the matrix with these rows, $G = J J^\\top$
their Gramian, $L_i$ the loss, $m$ the number of tasks that are present in the step, $w$ the weights and $d = J^\\top w$
the update.

*Needs* says what is measured for a method: losses and a Gramian cost nothing beside the step itself. *Scale* says how
long the update is where nothing conflicts: *sum* and *mean* as those of the gradients, *simplex* for weights that add
up to 1. A method with another scale needs another learning rate; `norm_matched: true` makes all alike. *Undefined*
says when a method has no answer and what the step takes instead; the log says so too, under `notes` in
`trainer_log.jsonl` and as a text in TensorBoard.
"""


def page() -> str:
    """Write the whole page.

    Returns:
        Markdown.
    """
    rows = [
        f"| [`{n}`](#{anchor(n, c)}) | {c.__name__} | {needs(c)} | {c.scale} | {paper(c)} |"
        for n, c in COMBINERS.items()
    ]
    wrapped = [
        f"| `{key}` | [{cls.__name__}](#{anchor(key, cls)}) | {first_line(cls)} |" for key, cls in WRAPPERS.items()
    ]
    parts = [
        INTRODUCTION,
        "## Methods\n\n"
        + "\n".join(["| name | class | needs | scale | paper |", "|---|---|---|---|---|", *rows])
        + "\n",
        "## Wrappers\n\nWrappers are combiners around combiners, in this order whatever the order of the keys:\n\n"
        + "\n".join(["| key | class | |", "|---|---|---|", *wrapped])
        + "\n",
        *(section(name, cls) for name, cls in COMBINERS.items()),
        *(section(key, cls) for key, cls in WRAPPERS.items()),
    ]
    return "\n".join(parts)


def section(name: str, cls: type[Combiner]) -> str:
    """Write the section of one class.

    Args:
        name: Its name in a configuration.
        cls: The class.

    Returns:
        Markdown.
    """
    body, lists = taken_apart(inspect.cleandoc(cls.__doc__ or ""))
    facts = []
    if name in COMBINERS:
        facts = [f"**Needs** {NEEDS[cls.requires]}{OBSERVES.get(cls.observes, '')} · **Paper** {paper(cls)}\n"]
    parts = [f"## {heading(name, cls)}\n", *facts, body + "\n"]
    if "Args" in lists:
        parts.append("Arguments:\n" + described(lists["Args"], defaults(cls)) + "\n")
    if "Raises" in lists:
        parts.append("Refused:\n" + described(lists["Raises"], {}) + "\n")
    if "References" in lists:
        parts.append("References:\n" + references(lists["References"]) + "\n")
    return "\n".join([*parts, f"```pycon\n{textwrap.dedent(lists['Examples']).strip()}\n```\n"])


def taken_apart(text: str) -> tuple[str, dict[str, str]]:
    """Part a docstring into what is prose and what are lists.

    Args:
        text: The docstring without its indentation.

    Returns:
        The prose as Markdown, and the text of every section of `LISTS` that there is.
    """
    pieces = re.split(rf"^({'|'.join(LISTS)}):\n", text, flags=re.MULTILINE)
    prose = re.sub(r"\$\$\s*([\s\S]+?)\s*\$\$", _display, pieces[0].strip())
    prose = re.sub(r"^(Scale|Undefined|Cost|Departures): ", r"**\1:** ", prose, flags=re.MULTILINE)
    return links(prose), dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _display(found: re.Match[str]) -> str:
    """Put an equation on lines of its own, without indentation."""
    return "\n".join(["$$", *(line.strip() for line in found[1].splitlines()), "$$"])


def described(text: str, default: dict[str, str]) -> str:
    """Turn a section of `name: description` into a list.

    Args:
        text: The section.
        default: What to add to a name.

    Returns:
        One bullet per name.
    """
    entries = re.split(r"^(?=\S)", textwrap.dedent(text).strip(), flags=re.MULTILINE)
    bullets = []
    for entry in filter(None, entries):
        name, description = entry.split(":", 1)
        bullets.append(f"- `{name}{default.get(name, '')}`: {links(' '.join(description.split()))}")
    return "\n".join(bullets)


def defaults(cls: type[Combiner]) -> dict[str, str]:
    """Read the defaults of the arguments.

    Args:
        cls: The class.

    Returns:
        ` = value` by name, for the arguments that have one.
    """
    given = inspect.signature(cls).parameters.values()
    return {p.name: f" = {p.default!r}" for p in given if p.default is not p.empty}


def references(text: str) -> str:
    """Turn the references into a list.

    Args:
        text: The section; an entry ends with a full stop at the end of a line.

    Returns:
        One bullet per entry.
    """
    joined = " ".join(text.split())
    entries = re.split(r"(?<=\.) (?=[A-Z][\w'’-]+(?:, | et al))", joined)
    return "\n".join(f"- {links(entry)}" for entry in entries)


def links(text: str) -> str:
    """Turn links into those of Markdown.

    Args:
        text: Text with links of reStructuredText.

    Returns:
        The text.
    """
    return re.sub(r"`([^`<>]+?)\s+<([^>\s]+)>`_", lambda m: f"[{' '.join(m[1].split())}]({m[2]})", text)


def needs(cls: type[Combiner]) -> str:
    """Say in a word or two what a method needs.

    Args:
        cls: The class.

    Returns:
        The cheapest input, and what it observes.
    """
    return cls.requires if cls.observes == "nothing" else f"{cls.requires}, observes {cls.observes}"


def paper(cls: type[Combiner]) -> str:
    """Give the paper as a link.

    Args:
        cls: The class.

    Returns:
        Markdown.

    Raises:
        ValueError: If there is no link.
    """
    link = re.search(r",? (https://[^\s)]+)", cls.paper)
    if link is None:
        raise ValueError(f"`{cls.__name__}.paper` must hold a link, got {cls.paper!r}.")
    return f"[{cls.paper[: link.start()]}]({link[1]}){cls.paper[link.end() :]}"


def first_line(cls: type[Combiner]) -> str:
    """Give the first line of the docstring.

    Args:
        cls: The class.

    Returns:
        One sentence.
    """
    return inspect.cleandoc(cls.__doc__ or "").split("\n", 1)[0]


def heading(name: str, cls: type[Combiner]) -> str:
    """Write the heading of a section.

    Args:
        name: Its name in a configuration.
        cls: The class.

    Returns:
        The heading.
    """
    return f"`{name}`: {cls.__name__}"


def anchor(name: str, cls: type[Combiner]) -> str:
    """Compute the anchor that GitHub gives a heading.

    Args:
        name: Its name in a configuration.
        cls: The class.

    Returns:
        The anchor.
    """
    return re.sub(r"[^\w\- ]", "", heading(name, cls).lower()).replace(" ", "-")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or check them.

    Args:
        argv: Words of the command line, None for those of the process.

    Returns:
        Exit code: 1 where a page is stale.
    """
    parser = argparse.ArgumentParser(prog="python docs/build.py", description="Write the pages that are generated.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    check = parser.parse_args(argv).check
    code = 0
    for path, text in ((PAGE, page()), (KEYS_PAGE, keys_page())):
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{path.name} is stale: run `python docs/build.py`.", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
