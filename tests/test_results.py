import json
import os
import signal
from pathlib import Path

import pytest

from mtl_opt.errors import InputError
from mtl_opt.results import checkpoints, holds_run, read_results, write_json
from mtl_opt.training.run.process import finish_step_on_interrupt


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


def test_the_first_interrupt_is_a_wish_and_the_second_stops():
    def press_twice():
        with finish_step_on_interrupt() as wish:
            assert not wish.requested
            os.kill(os.getpid(), signal.SIGINT)
            assert wish.requested
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is before
