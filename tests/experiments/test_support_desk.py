"""The embedded default at full length: its data, its windows, its command."""

import json

import pytest

from experiments.command import main
from experiments.support_desk.measure import measure, windows, with_rows


def test_only_the_first_rows_of_the_small_task_are_kept(tmp_path):
    (tmp_path / "all.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(5)), encoding="utf-8")
    tasks = {"anger": {"file": str(tmp_path / "all.jsonl"), "weight": 2.0}, "qa": {"file": "elsewhere"}}
    found = with_rows(tasks, 2, tmp_path / "out")
    assert found["qa"] == tasks["qa"]
    assert found["anger"]["weight"] == 2.0
    with open(found["anger"]["file"], encoding="utf-8") as file:
        assert [json.loads(line)["n"] for line in file] == [0, 1]


def test_windows_that_share_no_step_are_read(tmp_path):
    cosines, verdict = [[1, 0.4], [0.4, 1]], [["noise", "real agreement"], ["real agreement", "noise"]]
    corrected = {"cosines": cosines, "verdict": verdict}
    lines = [
        {"step": step, "tasks": ["a", "情绪"], "corrected": corrected if step > 40 else None} for step in (40, 50, 60)
    ]
    for run in ("x", "y"):
        (tmp_path / run).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / run / "conflict.jsonl").write_text(text, encoding="utf-8")
    found = windows([tmp_path / "x", tmp_path / "y"], 20)
    assert found == {"a, 情绪": {"60": {"cosines": [0.4, 0.4], "real agreement": 2}}}


@pytest.mark.slow
def test_the_quick_run_keeps_its_verdicts_and_is_the_same_when_it_is_asked_again(tmp_path, capsys):
    arguments = ["--quick", "--json", "--jobs", "1", "--output", str(tmp_path / "out")]
    results = []
    for _ in range(2):
        assert main(measure, arguments=arguments) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert all(results[0]["verdicts"].values()), results[0]
    assert results[0]["rows"] == results[1]["rows"]
    pairs = results[0]["rows"]["900"]["cosines_of_sum"]
    assert set(pairs) == {"product_qa, complaint_core", "product_qa, anger", "complaint_core, anger"}
