import json

import pytest
from references.comparison_folder import write_comparison

from mtl_opt.errors import InputError
from mtl_opt.report.page.contents import contents
from mtl_opt.report.read.folder import read_folder


@pytest.fixture
def folder(tmp_path):
    write_comparison(tmp_path / "cmp", ["sum", "pcgrad"], [0, 1], steps=20, conflict=False)
    return tmp_path / "cmp"


def rewrite(folder, change):
    path = folder / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    changed = change(lines) or lines
    path.write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")


def test_a_comparison_and_a_run_are_told_apart(folder):
    assert (read_folder(folder).kind, len(read_folder(folder).lines)) == ("comparison", 10)
    run = read_folder(folder / "sum-seed0")
    assert (run.kind, run.lines[0]["tasks"]) == ("run", ["product_qa", "complaint_core", "anger"])
    assert run.lines[0]["finished"]


def test_a_missing_folder_an_empty_one_and_one_of_runs_are_refused_in_one_sentence(folder, tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folder of results"):
        read_folder(tmp_path / "empty")
    (folder / "results.jsonl").unlink()
    with pytest.raises(InputError, match=r"holds the folders `pcgrad-seed0`, .* one of them describes that run"):
        read_folder(folder)
    (folder / "results.jsonl").write_text("")
    with pytest.raises(InputError, match="empty"):
        read_folder(folder)


def test_a_half_finished_comparison_names_what_is_missing(folder):
    rewrite(folder, lambda lines: lines[:-1])
    found = read_folder(folder)
    assert found.unfinished == ["single-anger-seed1"]
    assert {"key": "unfinished", "n": 1, "names": ["single-anger-seed1"]} in contents(found)["notices"]


def test_planned_runs_without_a_folder_count_as_unfinished(folder):
    (folder / "grid.json").write_text(json.dumps({"runs": ["sum-seed0", "mgda-seed0"]}))
    assert read_folder(folder).unfinished == ["mgda-seed0"]


def test_a_torn_last_line_is_said_and_a_line_of_something_else_refused(folder):
    path = folder / "results.jsonl"
    path.write_bytes(path.read_bytes() + '{"run": "情'.encode()[:-1])
    found = read_folder(folder)
    assert (found.torn, len(found.lines)) == (True, 10)
    assert {"key": "torn"} in contents(found)["notices"]
    path.write_text('{"run": "a", "combiner": "sum"}\n')
    with pytest.raises(InputError, match="`a` is no result of a run"):
        read_folder(folder)


def test_runs_on_other_tasks_or_data_are_refused_with_what_differs(folder):
    rewrite(folder, lambda lines: lines[1].update(tasks=["product_qa"]))
    with pytest.raises(InputError, match=r"tasks.*`pcgrad-seed0`.*product_qa"):
        contents(read_folder(folder))

    def other_data(lines):
        lines[1]["tasks"] = lines[0]["tasks"]
        lines[1]["provenance"]["data_hash"] = "ffff"

    rewrite(folder, other_data)
    with pytest.raises(InputError, match=r"data_hash.*3f2a9c11d0.*`pcgrad-seed0` has ffff"):
        contents(read_folder(folder))


def test_a_run_that_has_not_finished_is_reported_as_such(folder):
    run = folder / "sum-seed0"
    (run / "all_results.json").unlink()
    log = run / "trainer_log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4]) + b'{"current_steps": 8, "lo')
    data = contents(read_folder(run))
    assert not data["finished"]
    assert data["notices"] == [{"key": "running", "step": 6, "total": 20}]
    log.write_bytes(b"")
    with pytest.raises(InputError, match="has not logged anything yet"):
        read_folder(run)


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.yaml", "[1"), ("config.yaml", "- a"), ("all_results.json", "{"), ("all_results.json", "3")],
)
def test_broken_files_of_a_run_are_one_sentence(folder, name, text):
    (folder / "sum-seed0" / name).write_text(text)
    with pytest.raises(InputError, match=r"sum-seed0`: .*(cannot be read|is not that of a run)"):
        read_folder(folder / "sum-seed0")


def test_lines_of_earlier_releases_are_read(folder):
    new = ("role", "method", "sharing", "mixing", "norm_matched", "learning_rate", "non_finite", "directions",
           "main_metric", "steps", "overhead_seconds", "provenance")  # fmt: skip

    def older(lines):
        for line in lines:
            line["combiner"] = "single" if line["role"] == "baseline" else line["combiner"]
            for key in new:
                line.pop(key)

    rewrite(folder, older)
    data = contents(read_folder(folder))
    assert [(m["name"], m["role"]) for m in data["methods"]] == [
        ("sum", "method"), ("pcgrad", "method"), ("single", "baseline"),
    ]  # fmt: skip
    assert data["summary"]["baselines"] is not None
    assert {"key": "no_hash"} in data["notices"]


def test_values_that_are_not_finite_are_shown_not_dropped(folder):
    def diverge(lines):
        lines[0]["metrics"]["eval_anger_loss"] = float("nan")
        lines[1]["metrics"]["eval_anger_loss"] = None
        lines[1]["non_finite"] = ["eval_anger_loss: inf"]

    rewrite(folder, diverge)
    data = contents(read_folder(folder))
    assert data["runs"][0]["non_finite"] == ["eval_anger_loss: nan"]
    assert data["runs"][1]["non_finite"] == ["eval_anger_loss: inf"]
    names = ["sum-seed0 anger_loss: nan", "pcgrad-seed0 anger_loss: inf"]
    assert {"key": "non_finite", "names": names} in data["notices"]


def test_other_versions_are_pooled_and_said(folder):
    rewrite(folder, lambda lines: lines[0]["provenance"].update(torch="2.9.0"))
    data = contents(read_folder(folder))
    assert {"key": "versions", "names": ["torch"]} in data["notices"]
    assert data["reproduce"]["versions"]["torch"] == ["2.9.0", "2.13.0"]


@pytest.mark.parametrize(
    ("combiner", "label"), [("pcgrad", "sum (monitor only; pcgrad watched)"), ("sum", "sum (monitor only)")]
)
def test_a_run_that_only_watched_is_one_of_the_plain_sum(folder, combiner, label):
    run = folder / "pcgrad-seed0"
    config = json.loads((run / "config.yaml").read_text(encoding="utf-8"))
    text = json.dumps(config | {"monitor_only": True, "combiner": combiner})
    (run / "config.yaml").write_text(text, encoding="utf-8")
    found = read_folder(run)
    assert (found.lines[0]["method"], found.lines[0]["combiner"]) == (label, "sum")
    assert [method["label"] for method in contents(found)["methods"]] == [label]


def test_the_report_of_one_run_shows_the_pull_beside_the_rows(folder):
    path = folder / "sum-seed0" / "all_results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    results |= {"rows": {"product_qa": 60, "complaint_core": 20, "anger": 20}}
    results |= {"pull": {"product_qa": 0.5, "complaint_core": 0.25, "anger": 0.25}}
    path.write_text(json.dumps(results), encoding="utf-8")
    shares = "product_qa 60.0% / 50.0%, complaint_core 20.0% / 25.0%, anger 20.0% / 25.0%"
    assert {"key": "pull", "shares": shares} in contents(read_folder(path.parent))["notices"]
