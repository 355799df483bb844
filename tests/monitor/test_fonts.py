"""Finding a font that can draw a task name."""

from pathlib import Path

import pytest

from mtl_opt.monitor.fonts import can_draw, default_font, font_for, known_font_files, load_font


def test_plain_names_take_the_font_that_is_always_there(tmp_path):
    font = font_for("wiki_qa [v1.1] – no", 14, (str(tmp_path),))
    assert font is None  # the en dash is not in it
    assert font_for("wiki_qa [v1.1]", 14, (str(tmp_path),)) is default_font(14)


def test_a_name_no_font_can_draw_gives_none(tmp_path):
    assert font_for("情感分类", 14, (str(tmp_path),)) is None


@pytest.mark.parametrize("text", ["\ud800", "\uffff", "a\nb\x00"])
def test_what_is_no_character_cannot_be_drawn_unless_it_is_space(text):
    assert can_draw(default_font(14), text) == (text.isspace())


def test_missing_and_unreadable_font_files_are_passed_over(tmp_path):
    (tmp_path / "deep").mkdir()
    broken = tmp_path / "deep" / "NotoSansCJK-Regular.ttc"
    broken.write_bytes(b"no font")
    folders = (str(tmp_path), str(tmp_path / "missing"))
    assert known_font_files(folders) == (broken,)
    assert load_font(broken, 14) is None
    assert font_for("情感", 14, folders) is None


def test_the_regular_weight_is_preferred_and_better_fonts_come_first(tmp_path):
    for name in ["wqy-zenhei.ttc", "NotoSansCJK-Bold.ttc", "NotoSansCJK-Regular.ttc", "Unknown.ttf"]:
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in known_font_files((str(tmp_path),))]
    assert names == ["NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc"]


def test_an_installed_font_draws_what_the_default_font_cannot():
    if not any(path.name.startswith("DejaVuSans") for path in known_font_files()):
        pytest.skip("no DejaVu Sans on this system")
    font = font_for("финансы", 14)
    assert font is not None
    assert can_draw(font, "финансы")
    assert not can_draw(default_font(14), "финансы")


def test_chinese_names_are_drawn_where_a_chinese_font_is_installed():
    chinese = ("NotoSansCJK", "SourceHanSans", "wqy-", "PingFang", "msyh", "simhei", "DroidSansFallback")
    if not any(Path(path).name.startswith(chinese) for path in known_font_files()):
        pytest.skip("no Chinese font on this system")
    font = font_for("情感分类", 14)
    assert font is not None
    assert can_draw(font, "情感分类")
