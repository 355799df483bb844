"""The page of combiners is what the registry and the docstrings say, and can be read."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from mtl_opt.combiners import COMBINERS
from mtl_opt.training.config.foreign_keys import HARMLESS, REFUSED, RENAMED, TRANSLATED

FILE = Path(__file__).parents[2] / "docs" / "build.py"


@pytest.fixture(scope="module")
def build():
    """Load the script, which is outside every package."""
    spec = importlib.util.spec_from_file_location("docs_build", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(build):
    assert build.main(["--check"]) == 0, "run `python docs/build.py`"


def test_a_stale_or_missing_page_fails_the_check_and_is_not_touched(build, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "PAGE", tmp_path / "combiners.md")
    assert build.main(["--check"]) == 1
    assert not build.PAGE.exists()
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    text = build.PAGE.read_text(encoding="utf-8")
    build.PAGE.write_text(text.replace("PCGrad", "PCGrade", 1), encoding="utf-8")
    assert build.main(["--check"]) == 1
    assert "docs/combiners.md is stale: run `python docs/build.py`" in capsys.readouterr().err


def test_the_page_of_keys_lists_every_key_once_and_tries_the_examples(build, tmp_path, monkeypatch, capsys):
    text = build.keys_page()
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`([^`]+)`", row) if "/" not in name]
    assert sorted(listed) == sorted([*RENAMED, *TRANSLATED, *REFUSED, *HARMLESS])
    assert "| `train_lora/qwen3_lora_sft` | runs |" in text
    assert "| `extras/pissa/llama3_lora_sft` | refused: `pissa_init: true` cannot be had" in text
    assert len(re.findall(r"^\| `\w+/", text, re.MULTILINE)) >= 42
    monkeypatch.setattr(build, "KEYS_PAGE", tmp_path / "llamafactory.md")
    assert build.main(["--check"]) == 1
    assert "docs/llamafactory.md is stale" in capsys.readouterr().err


def test_every_method_has_a_row_and_a_section_in_the_order_of_the_registry(build):
    text = build.page()
    classes = [*((n, c) for n, c in COMBINERS.items()), *build.WRAPPERS.items()]
    headings = re.findall(r"^## `(.+?)`: (\w+)$", text, re.MULTILINE)
    assert headings == [(name, cls.__name__) for name, cls in classes]
    for name, cls in classes:
        assert f"](#{build.anchor(name, cls)})" in text
        own = text.split(f"## {build.heading(name, cls)}\n")[1].split("\n## ")[0]
        for part in ("**Scale:**", "**Undefined:**", "**Cost:**", "**Departures:**", "```pycon"):
            assert part in own, (name, part)
        for argument in inspect.signature(cls).parameters:
            assert f"- `{argument}" in own, (name, argument)
        assert (name not in COMBINERS) or all(part in own for part in ("**Needs**", "**Paper**", "References:", "$$"))


def test_nothing_of_a_docstring_is_left_in_its_own_markup(build):
    text = build.page()
    assert ">`_" not in text
    assert not re.search(
        r"^(Args|Raises|References|Examples|Scale|Undefined):$", text.replace("References:\n- ", ""), re.M
    )
    assert text.count("$$") % 2 == 0
    assert text.count("```") % 2 == 0
    assert all(line == "$$" for line in text.splitlines() if "$$" in line)


def test_arguments_show_their_defaults(build):
    text = build.page()
    assert "- `max_norm = 1.0`: Largest norm of the update; None: no cap." in text
    assert "- `combiner`: The combiner whose update is rescaled." in text


def test_references_are_one_bullet_each(build):
    text = "    Kendall, Gal, `One\n        title <https://a.org/1>`_, CVPR 2018, equations 7 and 10.\n    Liebel, `Two <https://b>`_."
    assert build.references(text) == (
        "- Kendall, Gal, [One title](https://a.org/1), CVPR 2018, equations 7 and 10.\n- Liebel, [Two](https://b)."
    )
