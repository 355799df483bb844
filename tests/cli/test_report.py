import pytest
from references.comparison_folder import write_comparison

from mtl_opt.cli import main


def test_report_writes_one_file_and_says_where(tmp_path, capsys):
    folder = tmp_path / "比较"
    write_comparison(folder, ["sum", "pcgrad"], [0], ["情绪", "qa"], steps=20)
    before = {path.name for path in folder.iterdir()}
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Report: {folder / 'report.html'}\n"
    assert {path.name for path in folder.iterdir()} - before == {"report.html"}


def test_a_half_finished_folder_is_reported_as_such(tmp_path, capsys):
    write_comparison(tmp_path, ["sum", "pcgrad"], [0], steps=20)
    path = tmp_path / "results.jsonl"
    path.write_text(path.read_text().split("\n")[0] + "\n")
    assert main(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Half-finished: runs without a result yet" in out
    assert "(4 in all)." in out


@pytest.mark.parametrize("content", [None, "", '{"run": "a"}\n'])
def test_bad_folders_are_one_sentence_and_leave_nothing(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mtl-opt: error: `")
    assert error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
