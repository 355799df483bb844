import json
import random
from itertools import combinations

import pytest
from references.comparison_folder import conflict_line, write_comparison

from mtl_opt.report.page.conflicts import all_conflicts, packed_conflict, read_conflict

TASKS = ["qa", "情绪", "sum"]
LETTERS = {"real conflict": "C", "real agreement": "A", "noise": "N"}


@pytest.fixture
def lines():
    means = {(0, 1): -0.4, (0, 2): 0.5, (1, 2): 0.02}
    return [
        conflict_line(step, TASKS, means, ["first", "last"], ["sum", "famo"], random.Random(step)) for step in (10, 60)
    ]


def test_every_number_of_a_line_comes_out_where_it_belongs(lines):
    packed = packed_conflict(lines, TASKS)
    for p, (i, j) in enumerate(combinations(range(3), 2)):
        for k, line in enumerate(lines):
            assert packed["cosines"][p][k] == round(100 * line["cosines"][i][j])
            assert packed["curvature_bound"][p][k] == pytest.approx(line["curvature_bound"][i][j], rel=1e-2)
            assert packed["layers"]["cosines"][p][1][k] == round(100 * line["layers"]["last"][i][j])
        last = lines[1]["corrected"]
        value = last["cosines"][i][j]
        assert packed["corrected"]["cosines"][p] == [None, None if value is None else round(100 * value)]
        assert packed["corrected"]["verdict"][p] == "-" + LETTERS[last["verdict"][i][j]]
    assert packed["corrected"]["window"] == [None, 100]
    assert packed["shares"][2][0] == pytest.approx(lines[0]["shares"][2], rel=1e-2)
    shadow = packed["shadows"]["famo"]
    assert shadow["on_this_trajectory"]
    assert shadow["note"]
    assert shadow["angle"][0] == round(lines[0]["shadows"]["famo"]["angle"], 1)
    assert shadow["change"][1][1] == pytest.approx(lines[1]["shadows"]["famo"]["change"][1], rel=1e-2)


def test_tasks_are_found_by_name_whatever_their_order(lines):
    straight, turned = packed_conflict(lines, TASKS), packed_conflict(lines, TASKS[::-1])
    assert turned["cosines"] == straight["cosines"][::-1]  # (2, 1), (2, 0), (1, 0)
    assert turned["shares"] == straight["shares"][::-1]


def test_what_a_line_lacks_is_none_and_no_error(lines):
    bare = {"step": 70, "tasks": TASKS, "cosines": [[1, None, None], [None, 1, 0.5], [None, 0.5, 1]]}
    packed = packed_conflict([bare, lines[1]], TASKS)
    assert [row[0] for row in packed["cosines"]] == [None, None, 50]
    assert packed["shadows"]["sum"]["angle"][0] is None
    assert packed["condition_number"][0] is None


def test_torn_lines_are_left_out_and_long_logs_thinned(lines, tmp_path):
    path = tmp_path / "conflict.jsonl"
    rows = [{**lines[0], "step": step} for step in range(10, 1010, 10)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) + '{"step": 1010, "tas'
    path.write_text(text, encoding="utf-8")
    kept = read_conflict(path, 12)
    assert len(kept) == 11
    assert kept[0]["step"] == 10
    assert read_conflict(tmp_path / "none.jsonl", 12) == []


def test_a_budget_keeps_the_first_runs_and_counts_the_others(tmp_path):
    found = write_comparison(tmp_path, ["sum", "pcgrad"], [0, 1], baselines=False, steps=200)
    runs = [(line, tmp_path / line["run"]) for line in found]
    kept = all_conflicts(runs, found[0]["tasks"], budget=20_000)
    assert kept["left_out"] == 4 - len(kept["runs"]) > 0
    assert len(json.dumps(kept)) < 60_000
    assert all_conflicts(runs, found[0]["tasks"])["left_out"] == 0


def test_without_conflict_jsonl_the_raw_cosines_come_from_the_log(tmp_path):
    log = [{"current_steps": s, "grad_cos_qa_情绪": s / 10, "conflict_rate": 0.5} for s in (1, 2)]
    path = tmp_path / "trainer_log.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in log), encoding="utf-8")
    line = {"run": "r", "method": "sum", "seed": 0, "tasks": ["qa", "情绪"]}
    (run,) = all_conflicts([(line, tmp_path)], ["qa", "情绪"])["runs"]
    assert (run["steps"], run["cosines"], "corrected" in run) == ([1, 2], [[10, 20]], False)
    assert all_conflicts([(line, tmp_path / "none")], ["qa", "情绪"])["runs"] == []
    assert all_conflicts([(line, tmp_path)], ["qa"])["runs"] == []


def test_a_diagnosis_names_the_combiner_whose_update_was_taken_beside_the_method(tmp_path):
    (found,) = write_comparison(tmp_path, ["cagrad"], [0], ["qa", "情绪"], baselines=False, steps=20)
    line = found | {"method": "cagrad · norm_matched"}
    (run,) = all_conflicts([(line, tmp_path / found["run"])], ["qa", "情绪"])["runs"]
    assert (run["method"], run["taken"]) == ("cagrad · norm_matched", "cagrad")
