"""Metrics that tasks name, the answers behind them, and the curves of `plot_loss`: real runs, read back from disk."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image
from tiny_run import TASKS, config_of, write_jsonl

from mtl_opt import cli
from mtl_opt.evaluation import score
from mtl_opt.results import PREDICTIONS_JSONL
from mtl_opt.training import train

NAMES = {"qa": ["token_f1", "perplexity"], "摘要": ["rougeL", "bleu", "chrf"], "anger": ["accuracy", "f1_binary=yes"]}


@pytest.fixture
def measured(settings):
    for task, names in NAMES.items():
        settings["tasks"][task]["metrics"] = names
    return settings


def predictions_of(folder):
    text = (Path(folder) / PREDICTIONS_JSONL).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_named_metric_is_that_of_the_saved_answers(measured):
    results = train(config_of(measured, max_steps=2))
    rows = predictions_of(measured["output_dir"])
    assert [row["task"] for row in rows] == [task for task in TASKS for _ in range(3)]
    assert all(set(row) == {"task", "prompt", "predict", "label"} for row in rows)
    assert "概括下面的投诉" in rows[3]["prompt"]
    assert rows[3]["label"] == "扣款0"
    for task, names in NAMES.items():
        mine = [row for row in rows if row["task"] == task]
        wanted = score(names, [row["predict"] for row in mine], [row["label"] for row in mine])
        for name, value in wanted.items():
            assert results[f"eval_{task}_{name}"] == pytest.approx(value)
            assert f"before_eval_{task}_{name}" in results
    assert results["eval_qa_perplexity"] == pytest.approx(math.exp(results["eval_qa_loss"]))
    assert "eval_qa_exact_match" not in results
    assert results["evaluation_runtime"] > 0


def test_answers_are_not_generated_where_the_loss_is_enough(settings):
    settings["tasks"] = {"qa": {**settings["tasks"]["qa"], "metrics": ["perplexity"]}}
    results = train(config_of(settings, max_steps=1))
    assert {key for key in results if key.startswith("eval_")} == {"eval_qa_loss", "eval_qa_perplexity"}
    assert not (Path(settings["output_dir"]) / PREDICTIONS_JSONL).exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [(["rogueL"], ["`rougeL`", "task `摘要`"]), (["f1"], ["token_f1"]), (["f1_binary"], ["task `摘要`", "`扣款0`"])],
)
def test_a_metric_that_does_not_fit_is_refused_before_training(settings, refused, names, words):
    settings["tasks"]["摘要"]["metrics"] = names
    sentence = refused(settings)
    assert all(word in sentence for word in words)
    assert not Path(settings["output_dir"]).exists()


def test_eval_measures_the_same_metrics_again(measured, capsys):
    results = train(config_of(measured, max_steps=1))
    capsys.readouterr()
    assert cli.main(["eval", measured["output_dir"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {k: v for k, v in results.items() if k.startswith("eval_")}


def test_plot_loss_draws_all_tasks_and_each_task(settings):
    train(config_of(settings, plot_loss=True, max_steps=3))
    folder = Path(settings["output_dir"])
    names = {"training_loss.png", *(f"training_loss_{task}.png" for task in TASKS)}
    assert {path.name for path in folder.glob("*.png")} == names
    for name in names:
        with Image.open(folder / name) as image:
            assert len(image.getcolors(10**6)) > 20


def write_answers(folder, answers):
    rows = [("情绪", "他生气吗？", "是"), ("情绪", "他生气吗？", "否"), ("qa", "How many?", "3")]
    rows = [
        {"task": t, "prompt": p, "predict": a, "label": label} for (t, p, label), a in zip(rows, answers, strict=True)
    ]
    write_jsonl(folder / PREDICTIONS_JSONL, rows)
    return str(folder)


def test_answers_of_two_runs_stand_side_by_side(tmp_path, capsys):
    one, two = write_answers(tmp_path / "甲", ["是", "是", "3"]), write_answers(tmp_path / "乙", ["是", "否", "4"])
    assert cli.main(["predictions", one, two]) == 0
    out = capsys.readouterr().out
    assert "[情绪] 他生气吗？" in out
    assert out.splitlines()[-1] == "甲: 2 of 3 right; 乙: 2 of 3 right"
    assert cli.main(["predictions", one, two, "--different", "--task", "情绪", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {"task": "情绪", "prompt": "他生气吗？", "label": "否", "predictions": {"甲": "是", "乙": "否"}}
    assert cli.main(["predictions", one, two, "--limit", "1"]) == 0
    assert "1 of 3 rows shown" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["absent", "other data", "task", "torn"])
def test_answers_that_cannot_be_paired_are_refused_in_one_sentence(tmp_path, capsys, case):
    one, two = write_answers(tmp_path / "a", ["是", "是", "3"]), write_answers(tmp_path / "b", ["是", "否", "4"])
    file = Path(two) / PREDICTIONS_JSONL
    if case == "absent":
        file.unlink()
    elif case == "other data":
        write_jsonl(file, [{"task": "x", "prompt": "y", "predict": "", "label": ""}])
    elif case == "torn":
        file.write_text('{"task": "情', encoding="utf-8")
    assert cli.main(["predictions", one, two, *(["--task", "情緒"] if case == "task" else [])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mtl-opt: error: ")
    assert error.count("\n") == 1


def test_a_model_that_answers_one_thing_everywhere_is_noted(measured, caplog):
    train(config_of(measured, max_steps=2, learning_rate=1.0))
    rows = predictions_of(measured["output_dir"])
    notes = [record.message for record in caplog.records if "are answered" in record.message]
    constant = [task for task in TASKS if len({row["predict"].strip() for row in rows if row["task"] == task}) == 1]
    assert constant  # so large a step leaves nothing of the model
    for task in constant:
        assert any(note.startswith(f"Task {task}: all 3 held-out") for note in notes)
