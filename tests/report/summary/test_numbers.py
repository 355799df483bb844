"""What a comparison says, with numbers computed by hand."""

import json
from dataclasses import asdict
from statistics import fmean

import pytest

from mtl_opt.errors import InputError
from mtl_opt.report import read_comparison, summarise, write_tables

TASKS = ("qa", "情感")


def line(method, seed, values, task=None, **others):
    """`values`: task -> main metric; the loss is 1 − value."""
    metrics = {f"eval_{name}_accuracy": value for name, value in values.items()}
    metrics |= {f"eval_{name}_loss": None if value is None else 1.001 - value for name, value in values.items()}
    return {
        "run": f"{method}-{task or ''}{seed}", "role": "baseline" if task else "method", "method": method,
        "combiner": method.split(" · ")[0], "seed": seed, "task": task, "tasks": list(values), "metrics": metrics,
        "non_finite": [f"eval_{name}_accuracy: nan" for name, value in values.items() if value is None],
        "main_metric": dict.fromkeys(values, "accuracy"), "directions": {"accuracy": True, "loss": False},
        "eval_rows": {name: {"qa": 30, "情感": 10}[name] for name in values}, "learning_rate": 0.01,
        "steps_per_second": 5.0, "peak_memory_mb": 100.0, "train_runtime": 3.0, "steps": 10, "conflict_rate": 0.5,
        "overhead_seconds": 0.1, "provenance": {"data_hash": "abc"}, **others,
    }  # fmt: skip


def baselines(seeds, value=0.5):
    return [line("single", seed, {task: value}, task=task) for seed in seeds for task in TASKS]


def comparison(seeds, sum_=0.4, pcgrad=0.6):
    jitter = [0.0, 0.01, -0.01, 0.005, -0.005, 0.002, -0.002, 0.0]
    found = []
    for seed in seeds:
        found.append(line("sum", seed, {"qa": sum_ + jitter[seed], "情感": 0.5}))
        found.append(line("pcgrad", seed, {"qa": pcgrad - jitter[seed], "情感": 0.5 + jitter[seed]}))
    return [*found, *baselines(seeds)]


def method(summary, name):
    return next(one for one in summary.methods if one.method == name)


def test_means_ranks_worst_tasks_and_changes_by_hand():
    summary = summarise([line("sum", 0, {"qa": 0.4, "情感": 0.7}), line("pcgrad", 0, {"qa": 0.6, "情感": 0.7}),
                         line("pcgrad", 1, {"qa": 0.2, "情感": 0.2}), *baselines([0, 1])])  # fmt: skip
    one = method(summary, "sum")
    assert one.changes["qa"].mean == pytest.approx(-20)
    assert one.changes["情感"].mean == pytest.approx(40)
    assert one.delta_m.mean == pytest.approx(10)
    assert one.worst_task == "qa"
    assert one.macro["accuracy"].mean == pytest.approx(0.55)
    assert one.micro["accuracy"].mean == pytest.approx((30 * 0.4 + 10 * 0.7) / 40)
    # Seed 0, which both have: qa ranks 2 and 1, 情感 is a tie of 1.5.
    assert one.mean_rank == pytest.approx((2 + 1.5) / 2)
    assert method(summary, "pcgrad").mean_rank == pytest.approx((1 + 1.5) / 2)
    assert method(summary, "pcgrad").delta_m.mean == pytest.approx((30 - 60) / 2)
    assert summary.reference == "sum"


def test_auxiliary_tasks_are_measured_but_in_no_mean():
    values = {"sum": {"qa": 0.4, "情感": 0.9}, "pcgrad": {"qa": 0.6, "情感": 0.1}}
    lines = [line(name, 0, of, auxiliary=["情感"]) for name, of in values.items()]
    summary = summarise([*lines, *baselines([0])])
    one = method(summary, "sum")
    assert one.changes["情感"].mean == pytest.approx(80)
    assert one.delta_m.mean == pytest.approx(-20)
    assert one.delta_m_loss.mean == pytest.approx(100 * (0.501 - 0.601) / 0.501)
    assert one.macro["accuracy"].mean == one.micro["accuracy"].mean == pytest.approx(0.4)
    assert one.worst_task == "qa"
    assert (one.mean_rank, method(summary, "pcgrad").mean_rank) == (2, 1)
    assert summary.winner == "pcgrad"
    assert "Auxiliary, in no mean, Δm or rank: 情感." in summary.notes
    without = summarise([line(name, 0, of, auxiliary=["情感"]) for name, of in values.items()])
    assert without.scores["pcgrad"].mean == pytest.approx(50)
    only = summarise([line("sum", 0, values["sum"], auxiliary=["qa", "情感"])])
    assert method(only, "sum").macro["accuracy"].mean == pytest.approx(0.65)


def test_loss_changes_count_in_their_own_direction():
    summary = summarise([line("sum", 0, {"qa": 0.75, "情感": 0.75}), *baselines([0])])
    assert method(summary, "sum").delta_m_loss.mean == pytest.approx(100 * (0.501 - 0.251) / 0.501)


@pytest.mark.parametrize("seeds", [[0], [0, 1], [0, 1, 2]])
def test_with_few_seeds_the_verdict_says_that_no_test_can_tell(seeds):
    summary = summarise(comparison(seeds))
    assert summary.winner == "pcgrad"
    assert f"with {len(seeds)} paired seed" in summary.verdict
    assert "no test can tell" in summary.verdict
    assert {one.verdict for one in [*summary.comparisons, *summary.transfer]} == {"too few seeds"}


def test_a_clear_difference_is_told_and_a_small_one_is_not():
    clear = summarise(comparison(range(6)))
    (one,) = clear.comparisons
    assert (one.method, one.other, one.verdict) == ("pcgrad", "sum", "better")
    assert one.p == one.p_holm < 0.001
    assert one.low <= one.difference <= one.high
    assert clear.verdict.startswith("`pcgrad` has the highest mean Δm %, and it is better than every other method")
    same = summarise(comparison(range(6), sum_=0.5, pcgrad=0.5))
    assert same.comparisons[0].verdict == "not distinguishable"
    assert "not distinguishable from any other method" in same.verdict
    assert "are not distinguishable: " in same.comparisons[0].sentence


def test_transfer_tells_which_tasks_a_method_harms():
    found = {(one.method, one.task): one for one in summarise(comparison(range(6))).transfer}
    assert found["sum", "qa"].verdict == "worse"
    assert found["pcgrad", "qa"].verdict == "better"
    assert found["pcgrad", "情感"].verdict == found["sum", "情感"].verdict == "not distinguishable"
    assert found["sum", "qa"].other == "single"


def test_without_baselines_methods_are_compared_with_the_reference_and_delta_m_has_a_reason():
    results = [one for one in comparison(range(5)) if one["role"] == "method"]
    summary = summarise(results)
    assert summary.baselines is None
    assert summary.score_name == "Δ % against `sum`"
    assert summary.scores["sum"].values == [0.0] * 5
    change = [100 * (r["metrics"]["eval_qa_accuracy"] / s["metrics"]["eval_qa_accuracy"] - 1) / 2
              + 100 * (r["metrics"]["eval_情感_accuracy"] / s["metrics"]["eval_情感_accuracy"] - 1) / 2
              for s, r in zip(results[::2], results[1::2], strict=True)]  # fmt: skip
    assert summary.scores["pcgrad"].mean == pytest.approx(fmean(change))
    assert any("Δm is missing: there are no single-task baselines" in note for note in summary.notes)
    assert summary.transfer == []


def test_a_run_that_diverged_is_shown_and_cannot_win():
    results = comparison(range(5))
    broken = [line("pcgrad", 4, {"qa": None, "情感": None}) if one["run"] == "pcgrad-4" else one for one in results]
    summary = summarise(broken)
    assert method(summary, "pcgrad").delta_m.mean is None
    assert method(summary, "pcgrad").delta_m.num_non_finite == 1
    assert method(summary, "pcgrad").scores["qa"]["accuracy"].values[4] is None
    assert summary.winner == "sum"
    assert summary.comparisons[0].verdict == "not finite"
    assert "Not finite: `pcgrad-4`: eval_qa_accuracy: nan." in summary.notes
    assert method(summary, "pcgrad").mean_rank > 1


def test_a_method_that_observes_held_out_rows_is_named():
    notes = summarise([*comparison([0]), line("coba", 0, {"qa": 0.5, "情感": 0.5})]).notes
    assert [note for note in notes if "observes" in note] == [
        "`coba` observes losses of the held-out rows while it trains: for it they are not unseen."
    ]


def test_the_summary_is_json_and_the_same_every_time():
    one, two = (json.dumps(asdict(summarise(comparison(range(5)))), allow_nan=False) for _ in range(2))
    assert one == two


def test_a_task_whose_name_starts_with_another_keeps_its_own_metrics():
    values = {"qa": 0.4, "qa_hard": 0.6}
    rows = {"eval_rows": {"qa": 1, "qa_hard": 1}}
    one = line("sum", 0, {"qa": 0.4}) | {"tasks": list(values), **rows}
    one["metrics"] = {"eval_qa_accuracy": 0.4, "eval_qa_loss": 1.0, "eval_qa_hard_accuracy": 0.6}
    one["main_metric"] = dict.fromkeys(values, "accuracy")
    scores = summarise([one]).methods[0].scores
    assert list(scores["qa"]) == ["accuracy", "loss"]
    assert list(scores["qa_hard"]) == ["accuracy"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ["qa", "other"]}, ["the tasks", "`sum-0` has qa, 情感", "qa, other"]),
        ({"provenance": {"data_hash": "xyz"}}, ["the data", "abc", "xyz"]),
        ({"main_metric": {"qa": "loss", "情感": "accuracy"}}, ["main metric of `qa`", "accuracy", "loss"]),
    ],
)
def test_runs_that_disagree_are_refused_and_the_sentence_says_in_what(change, words):
    results = [line("sum", 0, {"qa": 0.4, "情感": 0.5}), line("pcgrad", 0, {"qa": 0.4, "情感": 0.5}) | change]
    with pytest.raises(InputError) as error:
        summarise(results)
    assert all(word in str(error.value) for word in ["cannot be pooled", "`pcgrad-0`", *words])


MODEL = {"model_name_or_path": "models/微型-v1", "max_steps": 10}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (line("sum", 1, {"qa": 0.4, "情感": 0.5}, learning_rate=0.1), ["the learning rate of `sum`", "0.01", "0.1"]),
        (line("sum", 1, {"qa": 0.4, "情感": 0.5}, steps=20), ["the steps of `sum`", "has 10", "has 20"]),
        (line("sum", 1, {"qa": 0.4, "情感": 0.5}, config={**MODEL, "max_steps": 20}), ["the steps of `sum`", "20"]),
        (line("sum", 1, {"qa": 0.4, "情感": 0.5}, config={**MODEL, "model_name_or_path": "models/微型-v2"}),
         ["the model", "models/微型-v1", "models/微型-v2"]),
        (line("pcgrad", 0, {"qa": 0.4, "情感": 0.5}, config={**MODEL, "model_name_or_path": "models/微型-v2"}),
         ["the model", "models/微型-v1", "models/微型-v2"]),
    ],
)  # fmt: skip
def test_lines_of_other_settings_are_refused(other, words):
    with pytest.raises(InputError) as error:
        summarise([line("sum", 0, {"qa": 0.4, "情感": 0.5}, config=MODEL), other])
    assert all(word in str(error.value) for word in ["cannot be pooled", f"`{other['run']}`", *words])


def test_methods_have_rates_and_steps_of_their_own_and_so_have_baselines():
    values = {"qa": 0.4, "情感": 0.5}
    lines = [line("sum", 0, values), line("pcgrad", 0, values, learning_rate=0.1, steps=7)]
    alone = [
        line("single", 0, {"qa": 0.5}, task="qa"),
        line("single", 0, {"情感": 0.5}, task="情感", learning_rate=1.0),
    ]
    assert len(summarise([*lines, *alone]).methods) == 2


def test_lines_without_configuration_rate_or_steps_are_still_pooled():
    lines = [line("sum", seed, {"qa": 0.4, "情感": 0.5}) for seed in (0, 1)]
    lines[0] |= {"config": {**MODEL, "learning_rate": 0.01}}
    for key in ("learning_rate", "steps", "provenance"):
        lines[1].pop(key)
    assert summarise(lines).seeds == [0, 1]
    lines[0] |= {"config": {**MODEL, "max_steps": -1, "num_train_epochs": 3.0}}
    assert summarise([*lines, line("sum", 2, {"qa": 0.4, "情感": 0.5}, steps=9)]).seeds == [0, 1, 2]
    uneven = [line("sum", seed, {"qa": 0.4, "情感": 0.5}, steps=10 + seed,
                   config={"num_train_epochs": 3.0, "max_steps": -1}) for seed in (0, 1)]  # fmt: skip
    assert summarise(uneven).seeds == [0, 1]  # rows that are used up at another step are no other setting


def test_folders_that_are_absent_empty_or_half_finished_are_reported_as_such(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        read_comparison(tmp_path / "没有")
    with pytest.raises(InputError, match="holds no results"):
        read_comparison(tmp_path)
    (tmp_path / "grid.json").write_text('{"runs": ["sum-0", "pcgrad-0", "pcgrad-1"]}', encoding="utf-8")
    with pytest.raises(InputError, match="none of its 3 runs is finished"):
        read_comparison(tmp_path)
    text = json.dumps(line("sum", 0, {"qa": 0.4, "情感": 0.5}), ensure_ascii=False).encode()
    (tmp_path / "results.jsonl").write_bytes(text + b"\n" + text[: text.index("情".encode()) + 1])
    lines, notes = read_comparison(tmp_path)
    assert [one["run"] for one in lines] == ["sum-0"]
    assert notes == [
        "The last line of `results.jsonl` is torn and was left out.",
        "Half-finished: 2 of 3 runs have no result yet (`pcgrad-0`, `pcgrad-1`).",
    ]
    (tmp_path / "results.jsonl").write_bytes(b"{\n" + text + b"\n")
    with pytest.raises(InputError, match="line 1 is no result"):
        read_comparison(tmp_path)


def test_tables_are_written_in_all_forms_and_only_where_they_change(tmp_path):
    results = comparison(range(5))
    paths = write_tables(tmp_path, results)
    assert [path.name for path in paths] == ["results.txt", "results.md", "results.tex", "results.csv", "summary.json"]
    before = {path: path.stat().st_mtime_ns for path in paths}
    latex = (tmp_path / "results.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    rows = [row for row in latex.splitlines() if row.endswith(r" \\") and not row.startswith(r" & \multicolumn")]
    assert len({row.count("&") for row in rows[:4]}) == 1
    assert r"$\Delta$m \%" in latex
    csv = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()
    assert csv[0].split(",")[:5] == ["method", "task", "metric", "higher_is_better", "mean"]
    assert any(row.startswith("pcgrad,情感,accuracy,True,0.5") for row in csv)
    assert any(row.startswith("pcgrad,,delta_m_percent,True,") for row in csv)
    write_tables(tmp_path, results)
    assert {path: path.stat().st_mtime_ns for path in paths} == before


def test_two_hundred_runs_are_summed_up_quickly():
    import time

    results = [
        line(f"method {m}", seed, {"qa": 0.5 + 0.001 * m * (seed % 3), "情感": 0.4})
        for m in range(40)
        for seed in range(5)
    ]
    begin = time.perf_counter()
    summary = summarise([*results, *baselines(range(5))])
    assert len(summary.methods) == 40
    assert time.perf_counter() - begin < 20
