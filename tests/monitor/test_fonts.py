"""Fonts for task names in any script."""

from types import SimpleNamespace

import pytest
from matplotlib import font_manager

from mtl_opt.monitor.fonts import OWN_FAMILY, font_families, installed_fonts


@pytest.fixture
def only_fonts(monkeypatch):
    """Make matplotlib know no other fonts than those given."""

    def choose(*entries):
        monkeypatch.setattr(font_manager.fontManager, "ttflist", list(entries))
        installed_fonts.cache_clear()
        font_families.cache_clear()

    yield choose
    monkeypatch.undo()
    installed_fonts.cache_clear()
    font_families.cache_clear()


def entry(name, style="normal", weight=400, fname="missing.ttf"):
    return SimpleNamespace(name=name, style=style, weight=weight, fname=fname)


def own_entries():
    return [entry for entry in font_manager.fontManager.ttflist if entry.name == OWN_FAMILY]


@pytest.mark.parametrize("text", ["wiki_qa [v1.1] – no", "финансы", "$a$ é", "", " \n"])
def test_the_font_that_is_always_there_draws_the_alphabets_of_europe(text):
    assert font_families(text) == (OWN_FAMILY,)


def test_a_name_that_no_font_can_draw_gives_none(only_fonts):
    only_fonts(*own_entries())
    assert font_families("情感分类") is None


@pytest.mark.parametrize("text", ["\ud800", "\uffff", "a\x00", "𒀀𒀁"])
def test_what_has_no_glyph_cannot_be_drawn(text):
    assert font_families(text) is None


def test_missing_and_unreadable_font_files_are_passed_over(only_fonts, tmp_path):
    broken = tmp_path / "NotoSansCJK-Regular.ttc"
    broken.write_bytes(b"no font")
    only_fonts(*own_entries(), entry("Noto Sans CJK SC", fname=str(broken)), entry("Gone", fname=str(tmp_path / "no")))
    assert font_families("情感") is None


def test_regular_sans_serif_fonts_for_simplified_chinese_come_first(only_fonts):
    names = ["Noto Serif CJK SC", "Noto Sans CJK JP", "Last Resort High-Efficiency", "Noto Sans Mono CJK SC"]
    only_fonts(entry("Noto Sans CJK SC", weight=700), *map(entry, names), entry("Noto Sans CJK SC"))
    found = [(font.name, font.weight) for font in installed_fonts()]
    assert found[:3] == [("Noto Sans CJK SC", 400), ("Noto Sans CJK JP", 400), ("Noto Sans Mono CJK SC", 400)]
    assert found[3:] == [("Noto Serif CJK SC", 400), ("Noto Sans CJK SC", 700)]


def test_chinese_names_are_drawn_where_a_chinese_font_is_installed():
    chinese = ("Noto Sans CJK", "Source Han Sans", "WenQuanYi", "PingFang", "Microsoft YaHei", "SimHei")
    if not any(font.name.startswith(chinese) for font in installed_fonts()):
        pytest.skip("no Chinese font on this system")
    own, chosen = font_families("情感分类")
    assert own == OWN_FAMILY
    font = font_manager.get_font(font_manager.findfont(chosen))
    assert all(font.get_char_index(ord(char)) for char in "情感分类")
