"""The search for learning rates: rows nobody else sees, the same budget, ties, another `select_by`."""

import json
import math
import shutil
from pathlib import Path

import pytest
from tiny_comparison import compare, lines_by_run
from tiny_run import TASKS, write_jsonl

from mtl_opt.comparison.rate_search import choose_rates, search_score
from mtl_opt.training import train_config
from mtl_opt.training.setup.data import prepare


def line(rate, score, loss, method="a", task=None):
    return {
        "method": method, "task": task, "tasks": ["x"], "learning_rate": rate, "search_score": score,
        "metrics": {"eval_x_loss": loss},
    }  # fmt: skip


def test_the_search_never_sees_the_held_out_rows_and_learns_from_fewer(grid):
    base = prepare(train_config({k: v for k, v in grid.items() if k not in {"combiners", "seeds"}}))
    data = prepare(
        train_config({**{k: v for k, v in grid.items() if k not in {"combiners", "seeds"}}, "val_from_train": 0.25})
    )
    for task in TASKS:
        before = [(row.instruction, row.input) for row in base.train_rows[task]]
        kept = [(row.instruction, row.input) for row in data.train_rows[task]]
        held = [(row.instruction, row.input) for row in data.eval_rows[task]]
        assert sorted(kept + held) == sorted(before)
        assert len(held) == max(1, round(0.25 * len(before)))
        assert [row.line for row in data.eval_rows[task]] == sorted(row.line for row in data.eval_rows[task])
        assert len(data.train[task]) == len(kept) == len(data.labels[task])
        position = [(row.instruction, row.input) for row in base.train_rows[task]].index(held[0])
        assert list(data.eval_encoded[task][0].input_ids) == list(base.train[task][position].input_ids)


@pytest.mark.slow
def test_every_method_gets_its_best_rate_of_the_same_search(grid, tmp_path):
    grid |= {"learning_rates": [0.02, 1e-6, 0.001], "select_by": "loss", "seeds": [3, 4], "search_seeds": [5]}
    assert compare(grid, tmp_path) == 0
    lines = lines_by_run(grid)
    searches = [line for line in lines.values() if line["role"] == "search"]
    assert len(searches) == (2 + len(TASKS)) * 3
    assert {line["config"]["val_from_train"] for line in searches} == {0.1}
    assert {line["config"]["max_steps"] for line in searches} == {2}
    for name in ("sum", "pcgrad", "single-摘要"):
        tried = {lines[f"search-{name}-lr{rate}-seed5"]["search_score"]: rate for rate in ("1e-06", "0.001", "0.02")}
        best = float(tried[max(tried)])
        for seed in (3, 4):
            line = lines[f"{name}-seed{seed}"]
            assert line["learning_rate"] == line["config"]["learning_rate"] == best
            assert line["config"]["val_from_train"] is None
    assert (lines["sum-seed3"]["role"], lines["single-qa-seed3"]["role"]) == ("method", "baseline")
    summary = json.loads((Path(grid["output_dir"]) / "summary.json").read_text(encoding="utf-8"))
    assert sum(entry["chosen"] for entry in summary["search"]) == 2 + len(TASKS)
    assert any("is the largest that was tried" in note for note in summary["notes"])


def test_ties_go_to_the_lower_loss_then_to_the_smaller_rate_and_what_diverged_comes_last():
    names = {("a", None): "a"}
    assert choose_rates([line(0.1, 0.5, 2.0), line(0.2, 0.5, 1.0)], names) == {"a": 0.2}
    assert choose_rates([line(0.2, 0.5, 1.0), line(0.1, 0.5, 1.0)], names) == {"a": 0.1}
    assert choose_rates([line(0.1, -5.0, 9.0), line(0.2, None, None)], names) == {"a": 0.1}
    assert choose_rates([line(0.1, 0.9, 1), line(0.1, None, None), line(0.2, 0.1, 1)], names) == {"a": 0.2}
    assert choose_rates([line(0.1, None, None), line(0.2, None, None)], names) == {"a": 0.1}


def test_a_search_is_judged_by_main_metrics_or_by_losses():
    metrics = {"eval_x_accuracy": 0.5, "eval_y_perplexity": 4.0, "eval_x_loss": 0.0, "eval_y_loss": 0.0}
    run = {"tasks": ["x", "y"], "main_metric": {"x": "accuracy", "y": "perplexity"}, "metrics": metrics}
    assert search_score(run, "metric") == pytest.approx((0.5 + 0.25) / 2)
    assert search_score(run, "loss") == 1.0
    assert search_score({**run, "auxiliary": [run["tasks"][0]]}, "metric") != search_score(run, "metric")
    assert search_score({**run, "auxiliary": run["tasks"]}, "metric") == search_score(run, "metric")
    run["metrics"]["eval_x_accuracy"] = None
    assert search_score(run, "metric") is None


def test_a_changed_select_by_judges_the_searches_there_are_anew(grid, tmp_path):
    grid |= {"learning_rates": [1e-6, 0.05], "baselines": False, "combiners": ["sum"], "select_by": "metric"}
    assert compare(grid, tmp_path) == 0
    folder = Path(grid["output_dir"])
    before = lines_by_run(grid)
    kept = [line for line in before.values() if line["role"] == "search"]
    for line, (metric, loss) in zip(kept, [(0.9, 9.0), (0.1, 1.0)], strict=True):  # one is better by each
        for task in TASKS:
            line["metrics"] |= {f"eval_{task}_exact_match": metric, f"eval_{task}_loss": loss}
        line["search_score"] = metric
    write_jsonl(folder / "results.jsonl", kept)
    shutil.rmtree(folder / "sum-seed3")
    assert compare(grid, tmp_path, "select_by=loss") == 0
    found = lines_by_run(grid)
    assert found["sum-seed3"]["learning_rate"] == 0.05
    scores = {line["learning_rate"]: line["search_score"] for line in found.values() if line["role"] == "search"}
    assert scores == {1e-6: pytest.approx(math.exp(-9)), 0.05: pytest.approx(math.exp(-1))}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [entry["learning_rate"] for entry in summary["search"] if entry["chosen"]] == [0.05]
