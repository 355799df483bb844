"""Ratios and weights steer what is learnt: two tasks that answer the same prompts differently."""

import json
from pathlib import Path

import pytest
from tiny_run import config_of, write_jsonl

from mtl_opt.training import train

PROMPTS = [f"Is the parcel number {i} on its way? 包裹到了吗？" for i in range(40)]


@pytest.fixture
def clash(settings, tmp_path, caplog):
    """Give the settings of a run in which task `yes` says yes to every prompt and task `no` says no."""
    caplog.set_level("INFO")
    tasks = {}
    for answer in ("yes", "no"):
        rows = [{"instruction": prompt, "output": answer} for prompt in PROMPTS]
        files = [
            write_jsonl(tmp_path / f"{answer}_{part}.jsonl", rows[i:j]) for part, i, j in (("a", 0, 30), ("b", 30, 40))
        ]
        tasks[answer] = {"file": files[0], "eval_file": files[1]}
    return {
        **settings,
        "tasks": tasks,
        "max_steps": 50,
        "rows_per_task": 10,
        "lora_rank": 8,
        "cutoff_len": 128,
        "logging_steps": 50,
    }


def favoured(clash, answer, **changes):
    """Train, and return the share of the held-out prompts that get an answer."""
    output = Path(clash["output_dir"]) / answer
    results = train(config_of({**clash, "output_dir": str(output)}, **changes))
    lines = (output / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line)["predict"] for line in lines]
    return sum(prediction == answer for prediction in predictions) / len(predictions), results, output


def shares(answer, large=0.9):
    return {task: large if task == answer else 1 - large for task in ("yes", "no")}


@pytest.mark.parametrize("answer", ["yes", pytest.param("no", marks=pytest.mark.slow)])
def test_the_larger_ratio_gets_the_answer(clash, answer, caplog):
    share, results, output = favoured(clash, answer, mixing="ratios", ratios=shares(answer))
    assert share >= 0.9
    assert results["pull"] == pytest.approx(shares(answer))
    assert results["rows"] == {task: round(part * 50 * 20) for task, part in shares(answer).items()}
    other = "no" if answer == "yes" else "yes"
    line = json.loads((output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert line[f"rows_{answer}"] == 900
    assert line[f"pull_{other}"] == pytest.approx(0.1)
    assert "Share of the rows / pull (loss_reduction: rows): " in caplog.text
    assert f"{answer} 90.0% / 90.0%" in caplog.text


@pytest.mark.parametrize("answer", [pytest.param("yes", marks=pytest.mark.slow), "no"])
@pytest.mark.parametrize("combiner", ["sum", pytest.param("pcgrad", marks=pytest.mark.slow)])
def test_the_larger_weight_gets_the_answer_at_equal_rows(clash, answer, combiner):
    for task, weight in shares(answer).items():
        clash["tasks"][task]["weight"] = weight
    share, results, _ = favoured(clash, answer, combiner=combiner)
    assert share >= 0.9
    assert results["pull"] == pytest.approx(shares(answer))


def test_under_task_the_ratio_is_no_pull(clash, caplog):
    results = favoured(clash, "yes", mixing="ratios", ratios=shares("yes"), loss_reduction="task", max_steps=5)[1]
    assert results["pull"] == {"yes": 0.5, "no": 0.5}
    assert "yes 90.0% / 50.0%" in caplog.text


def test_a_combiner_of_directions_says_once_that_ratios_do_not_move_it(clash, caplog):
    said = "`nash_mtl` looks at the directions of the task gradients only"
    favoured(clash, "yes", combiner="nash_mtl", mixing="ratios", ratios=shares("yes"), max_steps=2)
    assert caplog.text.count(said) == 1
    caplog.clear()
    favoured(clash, "no", combiner="nash_mtl", max_steps=2)
    assert said not in caplog.text  # nothing there that could move it


def test_what_becomes_of_ratios_is_said_once(clash, caplog):
    favoured(clash, "yes", mixing="ratios", ratios={"yes": 3, "no": 1}, max_steps=1)
    assert caplog.text.count("`ratios` sum up to 4") == 1
