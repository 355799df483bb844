"""The log as JSON lines."""

import json
import re
from math import inf, nan

import pytest

from mtl_opt.monitor.json_lines import TrainerLog, clock_text


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_has_the_keys_of_llama_factory_and_then_all_scalars(tmp_path):
    path = tmp_path / "new" / "trainer_log.jsonl"
    scalars = {"loss": 1.5, "loss_qa": 1.0, "grad_cos_qa_sum": -0.25, "learning_rate": 1e-4}
    TrainerLog(path, total_steps=40).write(10, 0.5, scalars)
    (row,) = rows(path)
    head = ["current_steps", "total_steps", "loss", "lr", "epoch", "percentage", "elapsed_time", "remaining_time"]
    assert list(row) == [*head, "loss_qa", "grad_cos_qa_sum", "learning_rate"]
    assert (row["current_steps"], row["total_steps"], row["percentage"], row["epoch"]) == (10, 40, 25.0, 0.5)
    assert row["lr"] == row["learning_rate"] == 1e-4
    assert row["loss"] == 1.5
    assert all(re.fullmatch(r"\d+:\d\d:\d\d", row[key]) for key in ("elapsed_time", "remaining_time"))


def test_evaluations_are_lines_of_their_own(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    TrainerLog(path, total_steps=40).write_evaluation(0, {"eval_qa_loss": 2.0, "eval_qa_exact_match": 0.0})
    (row,) = rows(path)
    assert row["current_steps"] == 0
    assert row["percentage"] == 0
    assert row["eval_qa_loss"] == 2.0
    assert row["eval_qa_exact_match"] == 0.0


def test_what_is_not_finite_is_left_out(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    TrainerLog(path, total_steps=4).write(1, 0.1, {"loss": nan, "loss_qa": inf, "loss_sum": 1.0})
    (row,) = rows(path)
    assert "loss" not in row
    assert "loss_qa" not in row
    assert "lr" not in row
    assert row["loss_sum"] == 1.0


def test_chinese_stays_readable(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    TrainerLog(path, total_steps=4).write(1, 0.1, {"loss_情感": 1.0})
    assert '"loss_情感": 1.0' in path.read_text(encoding="utf-8")


def test_a_fresh_run_starts_a_new_file(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    TrainerLog(path, total_steps=4).write(1, 0.1, {"loss": 1.0})
    TrainerLog(path, total_steps=4)
    assert path.read_bytes() == b""


def test_resuming_drops_later_lines_and_continues(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    log = TrainerLog(path, total_steps=6)
    for step in range(1, 5):
        log.write(step, step / 6, {"loss_情感": float(step)})
    log.write_evaluation(2, {"eval_qa_loss": 9.0})
    before = path.read_bytes().splitlines()
    TrainerLog(path, total_steps=6, resume_step=2).write(3, 0.5, {"loss_情感": 30.0})
    assert [row["current_steps"] for row in rows(path)] == [1, 2, 2, 3]
    assert rows(path)[-1]["loss_情感"] == 30.0
    assert path.read_bytes().splitlines()[:3] == [before[0], before[1], before[4]]
    assert [file.name for file in tmp_path.iterdir()] == ["trainer_log.jsonl"]


@pytest.mark.parametrize("torn_bytes", [1, 5, 9, 30])
def test_resuming_drops_a_torn_last_line(tmp_path, torn_bytes):
    path = tmp_path / "trainer_log.jsonl"
    log = TrainerLog(path, total_steps=6)
    log.write(1, 0.1, {"loss": 1.0})
    whole = path.read_bytes()
    log.write(2, 0.2, {"情感情感情感": 1.0})
    path.write_bytes(path.read_bytes()[: -torn_bytes - 1])
    TrainerLog(path, total_steps=6, resume_step=2)
    assert path.read_bytes() == whole


def test_a_whole_last_line_without_its_line_break_is_kept(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    TrainerLog(path, total_steps=6).write(1, 0.1, {"loss": 1.0})
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    TrainerLog(path, total_steps=6, resume_step=1).write(2, 0.2, {"loss": 2.0})
    assert [row["current_steps"] for row in rows(path)] == [1, 2]


def test_resuming_without_a_log_starts_one(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    TrainerLog(path, total_steps=6, resume_step=2).write(3, 0.5, {})
    assert [row["current_steps"] for row in rows(path)] == [3]


def test_remaining_time_counts_only_the_steps_of_this_process(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    log = TrainerLog(path, total_steps=100, resume_step=90)
    log.start -= 50  # five steps in fifty seconds, five to go
    log.write(95, 1.0, {})
    (row,) = rows(path)
    assert (row["elapsed_time"], row["remaining_time"]) == ("0:00:50", "0:00:50")


def test_a_day_is_written_as_hours():
    assert clock_text(86_400 + 61) == "24:01:01"


def test_notes_stand_at_the_end_and_only_where_there_are_some(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    log = TrainerLog(path, total_steps=4)
    log.write(1, 0.1, {"loss": 1.0}, {"`Krum`: 任务太少.": 3})
    log.write(2, 0.2, {"loss": 1.0}, {})
    first, second = rows(path)
    assert first["notes"] == {"`Krum`: 任务太少.": 3}
    assert list(first)[-1] == "notes"
    assert "notes" not in second
