"""Rows and notes of the comparison, with numbers computed by hand."""

import pytest

from mtl_opt.errors import InputError
from mtl_opt.report.tables.layout import lay_out


def result(combiner, seed, metrics, tasks=("qa", "情感"), task=None, conflict=None, speed=10.0):
    return {
        "run": f"{combiner}-seed{seed}",
        "combiner": combiner,
        "seed": seed,
        "task": task,
        "tasks": list(tasks),
        "metrics": {f"eval_{key}": value for key, value in metrics.items()},
        "conflict_rate": conflict,
        "steps_per_second": speed,
        "peak_memory_mb": 512.0,
    }


def joint(combiner, seed, qa, feeling, **others):
    """`qa` and `feeling` are (exact match, loss)."""
    names = {"qa_exact_match": qa[0], "qa_loss": qa[1], "情感_exact_match": feeling[0], "情感_loss": feeling[1]}
    return result(combiner, seed, names, **others)


def single(task, seed, exact, loss):
    metrics = {f"{task}_exact_match": exact, f"{task}_loss": loss}
    return result("single", seed, metrics, tasks=[task], task=task, speed=40.0)


BASELINES = [
    single("qa", 0, 0.4, 1.0),
    single("情感", 0, 0.8, 0.5),
    single("qa", 1, 0.5, 2.0),
    single("情感", 1, 0.5, 0.5),
]
JOINT = [
    joint("pcgrad", 0, (0.5, 0.9), (0.8, 0.4), conflict=0.3, speed=8.0),
    joint("sum", 0, (0.4, 1.1), (0.6, 0.5), conflict=0.4, speed=10.0),
    joint("pcgrad", 1, (0.6, 1.8), (0.55, 0.5), conflict=0.2, speed=8.0),
    joint("sum", 1, (0.5, 2.0), (0.4, 0.5), conflict=0.4, speed=10.0),
]


def cells(table, combiner):
    row = table.methods.index(combiner)
    return {f"{column.group} {column.name}".strip(): column.cells[row] for column in table.columns}


def test_one_row_per_combiner_in_order_of_appearance_with_single_last():
    assert lay_out(BASELINES + JOINT).methods == ["pcgrad", "sum", "single"]


def test_metrics_are_means_over_seeds_with_their_spread():
    row = cells(lay_out(JOINT + BASELINES), "pcgrad")
    assert row["seeds"] == "2"
    assert row["qa EM %"] == "55.0 ± 7.1"  # 50 and 60
    assert row["qa loss"] == "1.350 ± 0.636"  # 0.9 and 1.8
    assert row["情感 EM %"] == "67.5 ± 17.7"  # 80 and 55
    assert row["情感 loss"] == "0.450 ± 0.071"  # 0.4 and 0.5


def test_delta_m_compares_with_the_baselines_of_the_same_seed():
    row = cells(lay_out(JOINT + BASELINES), "pcgrad")
    # EM, seed 0: (+25, 0) -> 12.5; seed 1: (+20, +10) -> 15. loss, seed 0: (+10, +20) -> 15; seed 1: (+10, 0) -> 5.
    assert row["Δm EM %"] == "+13.8 ± 1.8"
    assert row["Δm loss %"] == "+10.0 ± 7.1"


def test_worse_than_single_task_is_negative():
    row = cells(lay_out([JOINT[1], *BASELINES]), "sum")
    assert row["Δm EM %"] == "-12.5"  # 0 and -25
    assert row["Δm loss %"] == "-5.0"  # -10 and 0


def test_baselines_are_gathered_over_their_tasks():
    row = cells(lay_out(JOINT + BASELINES), "single")
    assert row["qa EM %"] == "45.0 ± 7.1"
    assert row["情感 loss"] == "0.500 ± 0.000"
    assert (row["Δm EM %"], row["Δm loss %"]) == ("0", "0")
    assert (row["conflict %"], row["step time"]) == ("–", "–")


def test_conflict_rate_and_step_time_are_means_and_relative_to_sum():
    table = lay_out(JOINT + BASELINES)
    assert (cells(table, "pcgrad")["conflict %"], cells(table, "pcgrad")["step time"]) == ("25.0", "1.25×")
    assert (cells(table, "sum")["conflict %"], cells(table, "sum")["step time"]) == ("40.0", "1.00×")
    assert any("relative to `sum`" in note for note in table.notes)


def test_without_sum_step_time_is_relative_to_the_first_combiner():
    table = lay_out([JOINT[0], joint("gradnorm", 0, (0.5, 1.0), (0.5, 1.0), speed=4.0)])
    assert cells(table, "gradnorm")["step time"] == "2.00×"
    assert any("relative to `pcgrad`" in note for note in table.notes)


def test_one_seed_has_no_spread():
    assert cells(lay_out(JOINT[:2]), "sum")["qa EM %"] == "40.0"


def test_without_baselines_delta_m_is_a_dash_and_a_line_says_why():
    table = lay_out(JOINT)
    assert cells(table, "sum")["Δm EM %"] == cells(table, "sum")["Δm loss %"] == "–"
    assert any("no single-task baselines" in note for note in table.notes)


def test_a_seed_without_its_baseline_is_left_out_and_named():
    table = lay_out(JOINT + BASELINES[:3])
    assert cells(table, "pcgrad")["Δm loss %"] == "+15.0"
    assert "Δm loss leaves out seed 1: there is no single-task baseline for `情感`." in table.notes


def test_a_baseline_of_zero_is_left_out_and_named():
    table = lay_out([*JOINT, single("qa", 0, 0.0, 1.0), *BASELINES[1:]])
    assert cells(table, "pcgrad")["Δm EM %"] == "+15.0"
    assert cells(table, "pcgrad")["Δm loss %"] == "+10.0 ± 7.1"
    assert "Δm EM leaves out seed 0: the single-task baseline of `qa` is 0." in table.notes


def test_what_is_not_finite_is_shown_and_a_missing_metric_is_a_dash():
    broken = result("sum", 0, {"qa_exact_match": 0.5, "qa_loss": float("nan"), "情感_loss": None})
    table = lay_out([broken, JOINT[3], *BASELINES])
    row = cells(table, "sum")
    assert row["qa loss"] == row["情感 loss"] == "nan (1 of 2)"
    assert row["Δm loss %"] == "nan (1 of 2)"
    assert row["情感 EM %"] == "40.0"
    assert row["Δm EM %"] == "-10.0"
    assert "Δm EM leaves out seed 0: `sum` has no value for `情感`." in table.notes
    assert "Not finite: `sum-seed0`: eval_qa_loss: nan." in table.notes
    assert "Not finite: `sum-seed0`: eval_情感_loss: nan." in table.notes


def test_a_run_that_was_repeated_counts_once():
    table = lay_out([joint("sum", 0, (0.1, 9.0), (0.1, 9.0)), JOINT[1]])
    assert cells(table, "sum")["seeds"] == "1"
    assert cells(table, "sum")["qa EM %"] == "40.0"


def test_baselines_alone_can_be_shown():
    assert cells(lay_out(BASELINES), "single")["情感 EM %"] == "65.0 ± 21.2"


def test_no_results_are_refused():
    with pytest.raises(InputError, match="no results"):
        lay_out([])
