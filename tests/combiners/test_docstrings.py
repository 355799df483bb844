"""Every docstring of the registry, and of every wrapper, says what a reader needs before using the method."""

import inspect
import re

import pytest

from mtl_opt.combiners import COMBINERS, Denoised, Every, NormMatched, Scoped, Smoothed

WRAPPERS = (Scoped, Denoised, Smoothed, Every, NormMatched)
PARAGRAPHS = ("Scale", "Undefined", "Cost", "Departures")
WHERE = re.compile(r"(Algorithms?|equations?|sections?|definition|chapter|correction|strategy|version|page|part)\b")


def document(cls):
    return inspect.cleandoc(cls.__doc__)


def section(cls, name):
    found = re.search(rf"^{name}:\n((?:    .*\n?|\n)+)", document(cls), re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("cls", [*COMBINERS.values(), *WRAPPERS], ids=lambda cls: cls.__name__)
def test_a_docstring_has_every_part(cls):
    text = document(cls)
    first = text.split("\n\n")[0]
    assert re.fullmatch(r"[A-Z][^\n]*\.", first), "the first line is one sentence"
    assert not re.search(r"[.!?] [A-Z]", first), "the first line is one sentence"
    for name in PARAGRAPHS:
        paragraph = re.search(rf"^{name}: \S.*", text, re.MULTILINE)
        assert paragraph, f"a paragraph that begins with `{name}:` is missing"
        assert text[: paragraph.start()].endswith("\n\n"), f"`{name}:` begins no paragraph"
    starts = [text.index(f"\n{name}: ") for name in PARAGRAPHS]
    assert starts == sorted(starts), f"the order is {', '.join(PARAGRAPHS)}"
    assert ">>>" in section(cls, "Examples")


@pytest.mark.parametrize("cls", COMBINERS.values(), ids=lambda cls: cls.__name__)
def test_a_method_gives_its_equation_and_its_source(cls):
    assert text_between_dollars(document(cls)), "an equation between $$ and $$ is missing"
    references = section(cls, "References")
    assert re.search(r"<https://\S+>`_", references), "a link is missing"
    assert WHERE.search(references), "where in the paper: algorithm, equation or section"
    link = re.search(r"https://[^\s)]+", cls.paper)
    assert link, "`paper` has no link"
    assert link[0] in references, "`paper` and References name different sources"


@pytest.mark.parametrize("cls", [*COMBINERS.values(), *WRAPPERS], ids=lambda cls: cls.__name__)
def test_every_argument_is_described_and_no_other(cls):
    described = re.findall(r"^    (\w+): ", section(cls, "Args"), re.MULTILINE)
    assert described == list(inspect.signature(cls).parameters)


def text_between_dollars(text):
    return re.findall(r"\$\$([\s\S]+?)\$\$", text)
