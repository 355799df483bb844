import struct
import sys

import pytest
from references.comparison_folder import write_comparison

from mtl_opt.errors import InputError
from mtl_opt.report.figures.figures import write_plots
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


def test_the_font_for_chinese_names_has_them():
    from matplotlib import font_manager

    from mtl_opt.monitor.fonts import known_font_files
    from mtl_opt.report.figures.style import style

    if not known_font_files():
        pytest.skip("no font with Chinese on this machine")
    families = style("情绪")["font.family"]
    assert len(families) > 1
    chars = [set(font_manager.get_font(font_manager.findfont(family)).get_charmap()) for family in families[1:]]
    assert any({ord("情"), ord("绪")} <= known for known in chars)
    assert style("qa")["font.family"] == ["DejaVu Sans"]


def test_without_matplotlib_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    write_comparison(tmp_path, ["sum"], [0], steps=20)
    data = contents(read_folder(tmp_path))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"matplotlib.*pip install mtl_opt\[plots\]"):
        write_plots(data, tmp_path)
    assert not (tmp_path / "plots").exists()
