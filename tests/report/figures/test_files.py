"""The figures of a report as files."""

import struct

import pytest
from references.comparison_folder import write_comparison

from mtl_opt.report.figures.files import write_plots
from mtl_opt.report.figures.style import style
from mtl_opt.report.page.contents import contents
from mtl_opt.report.read.folder import read_folder

ALL = ["scores", "tasks", "changes", "curves", "cosines", "layers", "shadows"]


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


@pytest.mark.slow
def test_every_figure_comes_as_png_and_pdf_with_chinese_names(tmp_path):
    write_comparison(tmp_path, ["sum", "pcgrad", "$famo$_1"], [0, 1], ["情绪", "问答", "qa_%"], steps=20)
    paths = write_plots(contents(read_folder(tmp_path)), tmp_path)
    assert {path.name for path in paths} == {f"{name}.{kind}" for name in ALL for kind in ("png", "pdf")}
    assert {path.parent for path in paths} == {tmp_path / "plots"}
    for path in paths:
        if path.suffix == ".png":
            assert min(png_size(path)) > 200
        else:
            assert path.read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_figures_without_data_are_left_out(tmp_path):
    write_comparison(tmp_path, ["sum"], [0], ["qa"], steps=20, baselines=False)
    assert {path.stem for path in write_plots(contents(read_folder(tmp_path)), tmp_path)} == {"curves", "scores"}
    run = tmp_path / "sum-seed0"
    assert {path.stem for path in write_plots(contents(read_folder(run)), run)} == {"curves"}


def test_a_chinese_name_brings_its_font_and_an_undrawable_one_takes_none_away(monkeypatch):
    fonts = {"情绪": ("DejaVu Sans", "Some Hei"), "qa": ("DejaVu Sans",), "𒀀": None}
    monkeypatch.setattr("mtl_opt.report.figures.style.font_families", fonts.__getitem__)
    assert style(["qa", "𒀀", "情绪"])["font.family"] == ["DejaVu Sans", "Some Hei"]
    assert style(["qa"])["font.family"] == ["DejaVu Sans"]


@pytest.mark.slow
def test_a_character_that_no_font_has_does_not_stop_a_figure(tmp_path):
    write_comparison(tmp_path, ["sum", "pcgrad"], [0], ["𒀀", "qa"], steps=20, baselines=False)
    names = {path.stem for path in write_plots(contents(read_folder(tmp_path)), tmp_path)}
    assert {"curves", "tasks"} <= names
