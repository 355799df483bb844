import json

from hypothesis import given
from hypothesis import strategies as st

from mtl_opt.report.page.curves import all_curves, band, evenly, metric_keys, read_log


@given(st.integers(0, 300), st.integers(2, 50))
def test_evenly_keeps_both_ends_the_order_and_no_more_than_asked(length, most):
    kept = evenly(range(length), most)
    assert len(kept) == min(length, most)
    assert kept == sorted(set(kept))
    if length:
        assert (kept[0], kept[-1]) == (0, length - 1)


def test_the_longest_task_name_owns_a_metric():
    keys = ["eval_qa_loss", "eval_qa_long_loss", "eval_情绪_exact_match", "loss"]
    assert metric_keys(["qa", "qa_long", "情绪"], keys) == {
        "eval_qa_loss": ("qa", "loss"), "eval_qa_long_loss": ("qa_long", "loss"),
        "eval_情绪_exact_match": ("情绪", "exact_match"),
    }  # fmt: skip


def test_a_band_is_mean_and_range_of_the_runs_that_have_a_value():
    curve = band([{0: 1.0, 10: 2.0}, {0: 3.0, 10: None, 20: float("inf")}])
    assert curve == {"x": [0, 10], "mean": [2, 2], "low": [1, 2], "high": [3, 2]}
    assert "low" not in band([{0: 1.0}])
    assert band([{0: None}, {}]) is None


def write_log(path, steps):
    path.parent.mkdir()
    rows = [{"current_steps": step, "loss_情绪": step / 10, "eval_情绪_loss": 9} for step in steps]
    for row in rows[1:]:
        row.pop("eval_情绪_loss")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text + '{"current_steps": 990, "loss_情', encoding="utf-8")


def test_runs_of_different_length_are_thinned_to_the_same_steps(tmp_path):
    write_log(tmp_path / "a" / "trainer_log.jsonl", range(0, 101, 2))
    write_log(tmp_path / "b" / "trainer_log.jsonl", range(0, 51, 2))
    paths = [tmp_path / name / "trainer_log.jsonl" for name in "ab"]
    (long, evaluated), (short, _) = read_log(paths, 11)
    assert len(long) <= 11
    assert set(short) == {step for step in long if step <= 50}
    assert list(evaluated) == [0]
    curve = all_curves({"sum": [tmp_path / "a", tmp_path / "b", tmp_path / "missing"]}, ["情绪"])["sum"]["loss"]["情绪"]
    assert curve["mean"] == [x / 10 for x in curve["x"]]
