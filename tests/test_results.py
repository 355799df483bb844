import json
from pathlib import Path

import pytest

from mtl_opt.errors import InputError
from mtl_opt.results import (
    append_result_line,
    checkpoints,
    comparison_lines,
    heal_result_lines,
    holds_run,
    line_of_run,
    read_results,
    write_json,
)


def test_writing_replaces_a_file_in_one_move_and_keeps_chinese(tmp_path: Path):
    path = tmp_path / "新" / "all_results.json"
    write_json(path, {"任务": 1})
    write_json(path, {"任务": 2})
    assert "任务" in path.read_text(encoding="utf-8")
    assert read_results(path.parent) == {"任务": 2}
    assert [p.name for p in path.parent.iterdir()] == ["all_results.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": 1}


def test_checkpoints_come_in_the_order_of_their_steps_and_only_whole_ones(tmp_path: Path):
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-11.partial", "checkpoint-x", "checkpoint-²"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-12").write_text("", encoding="utf-8")
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert checkpoints(tmp_path / "absent") == []


def test_an_empty_or_foreign_folder_holds_no_run(tmp_path: Path):
    assert not holds_run(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    assert not holds_run(tmp_path)
    (tmp_path / "checkpoint-1").mkdir()
    assert holds_run(tmp_path)


def test_results_that_cannot_be_read_are_one_sentence(tmp_path: Path):
    (tmp_path / "all_results.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path)


def test_a_line_is_read_as_it_was_written_and_a_repeated_run_counts_once(tmp_path: Path):
    for line in ({"run": "a", "seed": 0}, {"run": "情", "seed": 1}, {"run": "a", "seed": 2}):
        append_result_line(tmp_path / "比较", line)
    wanted = [{"run": "a", "seed": 2}, {"run": "情", "seed": 1}]
    assert comparison_lines(tmp_path / "比较") == (wanted, False)
    assert list(heal_result_lines(tmp_path / "比较").values()) == wanted


@pytest.mark.parametrize("torn", ['{"run": "情'.encode()[:-1], b"[1]", b'{"seed": 3}'])
def test_a_torn_last_line_is_reported_by_a_reader_and_dropped_by_the_writer(tmp_path: Path, torn):
    append_result_line(tmp_path, {"run": "a"})
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert comparison_lines(tmp_path) == ([{"run": "a"}], True)
    assert path.read_bytes() == whole + torn
    assert list(heal_result_lines(tmp_path)) == ["a"]
    assert path.read_bytes() == whole
    path.write_bytes(torn + b"\n" + whole)
    with pytest.raises(InputError, match="line 1 is no result of a run"):
        heal_result_lines(tmp_path)


def test_the_line_of_a_run_is_rebuilt_from_its_folder(tmp_path: Path):
    results = {"eval_qa_loss": 1.0, "before_eval_qa_loss": 2.0, "train_steps": 4, "conflict_rate": None}
    write_json(tmp_path / "all_results.json", results)
    (tmp_path / "config.yaml").write_text("combiner: pcgrad\nseed: 3\ntasks: {qa: {file: a}}\n", encoding="utf-8")
    line = line_of_run(tmp_path)
    assert (line["run"], line["role"], line["method"], line["seed"]) == (tmp_path.name, "method", "pcgrad", 3)
    assert (line["metrics"], line["before"]) == ({"eval_qa_loss": 1.0}, {"eval_qa_loss": 2.0})
    assert (line["steps"], line["tasks"], line["finished"]) == (4, ["qa"], True)
    assert "conflict_rate" not in line
