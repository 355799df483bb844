"""The grid of a comparison: names, settings, the choice of learning rates, budgets, worker processes."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import TASKS, log_lines, rows_of, write_config, write_jsonl

from mtl_opt import cli
from mtl_opt.comparison import compare_config
from mtl_opt.comparison.grid import final_run, methods_of
from mtl_opt.comparison.rate_search import choose_rates, search_runs, search_score
from mtl_opt.training import train_config
from mtl_opt.training.setup.data import prepare


@pytest.fixture
def grid(settings, tmp_path):
    return {
        **settings,
        "output_dir": str(tmp_path / "网格"),
        "combiners": ["sum", "pcgrad"],
        "seeds": [3],
        "max_steps": 2,
    }


def run(settings, tmp_path, *overrides):
    return cli.main(["compare", write_config(tmp_path / "config.yaml", settings), *overrides])


def lines_of(settings):
    text = (Path(settings["output_dir"]) / "results.jsonl").read_text(encoding="utf-8")
    return {line["run"]: line for line in map(json.loads, text.splitlines())}


def results_only(line):
    return {key: line[key] for key in ("metrics", "before", "conflict_rate", "learning_rate", "steps", "tasks")}


def entries(settings, tasks=("qa",)):
    config, shared = compare_config(settings)
    methods = methods_of(config, shared, tasks)
    finals = [final_run(method, seed, shared) for seed in config.seeds for method in methods]
    return [*search_runs(config, methods, shared, {}), *finals]


def test_every_choice_that_varies_stands_in_the_label_and_the_folder(grid):
    grid |= {
        "sharings": ["hard", "private_layers"],
        "sharing_args": {"private_layers": {"layers": 1}},
        "mixings": ["balanced", "temperature"],
        "mixing_args": {"temperature": {"temperature": 3.0}},
        "norm_matched": "both",
        "combiner_args": {"pcgrad": {"seed": 7}},
    }
    found = entries(grid)
    assert len(found) == 2 * 2 * 2 * 2 + 1
    by_name = {entry.name: entry for entry in found}
    entry = by_name["pcgrad-private_layers-temperature-norm_matched-seed3"]
    assert entry.method.label == "pcgrad · private_layers · temperature · norm_matched"
    config = entry.config
    assert (config.sharing, config.sharing_args) == ("private_layers", {"layers": 1})
    assert (config.mixing, config.mixing_args) == ("temperature", {"temperature": 3.0})
    assert (config.norm_matched, config.combiner_args) == (True, {"seed": 7})
    assert by_name["sum-hard-balanced-seed3"].config.sharing_args == {}
    single = by_name["single-qa-seed3"].config
    assert (single.sharing, single.norm_matched, single.only_tasks) == ("hard", False, ["qa"])


def test_one_value_varies_nothing_and_is_not_in_the_label(grid):
    grid |= {"sharings": ["hard"], "mixings": "sqrt", "norm_matched": True, "baselines": False}
    found = entries(grid)
    assert [entry.name for entry in found] == ["sum-seed3", "pcgrad-seed3"]
    assert all(entry.config.mixing == "sqrt" and entry.config.norm_matched for entry in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sharings": ["hrad"]}, ["`sharings`", "`hard`"]),
        ({"mixings": ["balanced"], "mixing": "sqrt"}, ["`mixing`", "`mixings`"]),
        ({"mixings": ["sqrt"], "mixing_args": {"temperature": {}}}, ["`mixing_args`", "`temperature`"]),
        ({"learning_rates": [0.1, 0.1]}, ["`learning_rates`", "different"]),
        ({"learning_rates": [0.1, -1]}, ["`learning_rates`", "-1"]),
        ({"budget": "5 parsecs"}, ["`budget`", "5 parsecs"]),
        ({"budget": "0"}, ["`budget`"]),
        ({"jobs": 0}, ["`jobs`"]),
        ({"norm_matched": "maybe"}, ["`norm_matched`"]),
        ({"val_from_train": 0.1}, ["`val_from_train`"]),
        ({"select_by": "luck"}, ["`select_by`"]),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(grid, refused, change, words):
    sentence = refused({**grid, **change}, verb="compare")
    assert all(word in sentence for word in words)
    assert not Path(grid["output_dir"]).exists()


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
    assert run(grid, tmp_path) == 0
    lines = lines_of(grid)
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


def line(rate, score, loss, method="a", task=None):
    return {
        "method": method, "task": task, "tasks": ["x"], "learning_rate": rate, "search_score": score,
        "metrics": {"eval_x_loss": loss},
    }  # fmt: skip


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


def test_a_budget_in_steps_holds_for_every_run(grid, tmp_path):
    assert run({**grid, "baselines": False}, tmp_path, "--budget", "3") == 0
    assert {line["steps"] for line in lines_of(grid).values()} == {3}


@pytest.mark.slow
def test_a_budget_in_seconds_becomes_steps_once(grid, tmp_path):
    assert run({**grid, "baselines": False}, tmp_path, "--budget", "1s") == 0
    known = json.loads((Path(grid["output_dir"]) / "budget.json").read_text(encoding="utf-8"))
    assert known["budget"] == "1 seconds"
    lines = lines_of(grid)
    for name in ("sum", "pcgrad"):
        assert lines[f"{name}-seed3"]["steps"] == known["steps"][name] > 2
        assert 0.2 < lines[f"{name}-seed3"]["train_runtime"] < 5
    assert run({**grid, "baselines": False}, tmp_path, "--budget", "1s") == 0  # from the file, not measured again
    assert run({**grid, "baselines": False}, tmp_path, "--budget", "2s") == 2


def test_ways_of_sharing_are_compared_end_to_end(grid, tmp_path, capsys):
    grid |= {"sharings": ["hard", "private_layers"], "sharing_args": {"private_layers": {"layers": 1}}}
    grid |= {"combiners": ["pcgrad"], "gradient_engine": "auto"}
    assert run({**grid, "baselines": False}, tmp_path) == 0
    lines = lines_of(grid)
    assert lines["pcgrad-hard-seed3"]["sharing"] == "none"
    assert lines["pcgrad-private_layers-seed3"]["sharing"] == "private_layers"
    assert lines["pcgrad-private_layers-seed3"]["metrics"] != lines["pcgrad-hard-seed3"]["metrics"]
    assert "pcgrad · private_layers" in capsys.readouterr().out


def test_changed_rows_are_refused(grid, tmp_path, refused):
    grid |= {"baselines": False}
    file = write_jsonl(tmp_path / "qa.jsonl", rows_of("qa", 5))
    grid["tasks"] = {"qa": {**grid["tasks"]["qa"], "file": file}}
    assert run(grid, tmp_path) == 0
    hashes = {line["provenance"]["data_hash"] for line in lines_of(grid).values()}
    assert len(hashes) == 1
    write_jsonl(tmp_path / "qa.jsonl", rows_of("qa", 6))
    assert "other data" in refused(grid, verb="compare")


def test_provenance_is_complete(grid, tmp_path):
    assert run({**grid, "combiners": ["sum"], "baselines": False}, tmp_path) == 0
    (found,) = lines_of(grid).values()
    keys = {"mtl_opt", "torch", "transformers", "peft", "python", "git_commit", "data_hash", "hardware", "time"}
    assert set(found["provenance"]) == keys
    assert all(found["provenance"][key] for key in keys - {"git_commit"})
    assert found["overhead_seconds"] > 0
    grid_file = json.loads((Path(grid["output_dir"]) / "grid.json").read_text(encoding="utf-8"))
    assert grid_file["runs"] == ["sum-seed3"]
    assert 0 < grid_file["overhead_share"] < 1


def test_after_a_resume_only_the_seconds_of_this_call_count_as_busy(grid, tmp_path):
    grid |= {"baselines": False, "save_steps": 1, "combiners": ["sum"], "seeds": [3, 4]}
    assert run(grid, tmp_path) == 0
    folder = Path(grid["output_dir"])
    (folder / "results.jsonl").unlink()
    path = folder / "sum-seed4" / "all_results.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"train_runtime": 500.0}))
    (folder / "sum-seed3" / "all_results.json").unlink()  # killed before its last step
    shutil.rmtree(folder / "sum-seed3" / "checkpoint-2")
    path = folder / "sum-seed3" / "checkpoint-1" / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["totals"] |= {"seconds": 1000.0, "evaluating": 70.0}
    path.write_text(json.dumps(state), encoding="utf-8")
    assert run(grid, tmp_path) == 0
    assert lines_of(grid)["sum-seed3"]["train_runtime"] > 1000
    found = json.loads((folder / "grid.json").read_text(encoding="utf-8"))
    assert 0 < found["busy_seconds"] < found["wall_seconds"]
    assert 0 < found["overhead_share"] < 1


def test_a_changed_select_by_judges_the_searches_there_are_anew(grid, tmp_path):
    grid |= {"learning_rates": [1e-6, 0.05], "baselines": False, "combiners": ["sum"], "select_by": "metric"}
    assert run(grid, tmp_path) == 0
    folder = Path(grid["output_dir"])
    before = lines_of(grid)
    kept = [line for line in before.values() if line["role"] == "search"]
    for line, (metric, loss) in zip(kept, [(0.9, 9.0), (0.1, 1.0)], strict=True):  # one is better by each
        for task in TASKS:
            line["metrics"] |= {f"eval_{task}_exact_match": metric, f"eval_{task}_loss": loss}
        line["search_score"] = metric
    write_jsonl(folder / "results.jsonl", kept)
    shutil.rmtree(folder / "sum-seed3")
    assert run(grid, tmp_path, "select_by=loss") == 0
    found = lines_of(grid)
    assert found["sum-seed3"]["learning_rate"] == 0.05
    scores = {line["learning_rate"]: line["search_score"] for line in found.values() if line["role"] == "search"}
    assert scores == {1e-6: pytest.approx(math.exp(-9)), 0.05: pytest.approx(math.exp(-1))}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [entry["learning_rate"] for entry in summary["search"] if entry["chosen"]] == [0.05]


@pytest.mark.parametrize(
    ("matched", "clip", "said"), [("both", 1.0, True), (True, 0.5, True), ("both", 0, False), (False, 1.0, False)]
)
def test_norm_matching_below_a_clip_is_said_to_show_little(grid, tmp_path, caplog, matched, clip, said):
    grid |= {"norm_matched": matched, "max_grad_norm": clip, "baselines": False, "combiners": ["sum"], "max_steps": 1}
    with caplog.at_level("INFO", "mtl_opt"):
        assert run(grid, tmp_path) == 0
    found = [record.getMessage() for record in caplog.records if "norm_matched" in record.getMessage()]
    found = [text for text in found if "clipped" in text]
    assert len(found) == said
    for text in found:
        assert f"`max_grad_norm: {clip:g}`" in text
        assert all(word in text for word in ("Adam", "`max_grad_norm: 0` with `optim: sgd`"))


@pytest.mark.slow
def test_a_line_names_the_threads_of_the_process_that_trained(grid, tmp_path, monkeypatch):
    threads = torch.get_num_threads() + 1
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    assert run({**grid, "baselines": False}, tmp_path, "--jobs", "2") == 0
    for line in lines_of(grid).values():
        assert f", {threads} threads" in line["provenance"]["hardware"]


@pytest.mark.slow
def test_worker_processes_give_the_same_numbers_as_one_process(grid, tmp_path):
    grid |= {"seeds": [3, 4], "learning_rates": [0.001, 0.01]}
    assert run(grid, tmp_path) == 0
    other = {**grid, "output_dir": str(tmp_path / "两个进程")}
    assert run(other, tmp_path, "--jobs", "2") == 0
    one, two = lines_of(grid), lines_of(other)
    assert set(one) == set(two)
    for name in one:
        assert results_only(one[name]) == results_only(two[name])
    assert [path.name for path in sorted((Path(other["output_dir"]) / "jobs").iterdir())] == [
        "worker-0.log", "worker-1.log"
    ]  # fmt: skip
    assert run(other, tmp_path, "--jobs", "2") == 0


@pytest.mark.slow
def test_what_a_worker_refuses_is_one_sentence_that_names_the_run(grid, refused):
    folder = Path(grid["output_dir"]) / "pcgrad-seed3"
    folder.mkdir(parents=True)
    (folder / "all_results.json").write_text("{", encoding="utf-8")
    sentence = refused(grid, "jobs=2", verb="compare")
    assert "Run `pcgrad-seed3`: " in sentence


@pytest.mark.slow
@pytest.mark.parametrize("to_the_group", [False, True])
def test_ctrl_c_stops_all_workers_and_the_next_call_goes_on_bit_by_bit(grid, tmp_path, to_the_group):
    grid |= {"max_steps": 60, "baselines": False, "lora_dropout": 0.2}
    assert run({**grid, "output_dir": str(tmp_path / "whole")}, tmp_path) == 0
    command = [sys.executable, "-m", "mtl_opt.cli", "compare", write_config(tmp_path / "config.yaml", grid)]
    process = subprocess.Popen(
        [*command, "--jobs", "2"], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    logs = [Path(grid["output_dir"]) / f"{name}-seed3" / "trainer_log.jsonl" for name in ("sum", "pcgrad")]
    while not all(log.exists() and len(log.read_bytes().splitlines()) > 5 for log in logs):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    if to_the_group:  # what a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("mtl-opt: Stopped after step ")
    assert "Traceback" not in error
    assert run(grid, tmp_path, "--jobs", "2") == 0
    for name in ("sum-seed3", "pcgrad-seed3"):
        file = Path(name) / "adapter_model.safetensors"
        mine, whole = load_file(Path(grid["output_dir"]) / file), load_file(tmp_path / "whole" / file)
        assert all(bool((mine[key] == whole[key]).all()) for key in whole)
        steps = [row["current_steps"] for row in log_lines(Path(grid["output_dir"]) / name) if "lr" in row]
        assert steps == list(range(1, 61))


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_comparison_with_a_sentence_and_no_orphans(grid, tmp_path):
    grid |= {"max_steps": 100000, "baselines": False}
    command = [sys.executable, "-m", "mtl_opt.cli", "compare", write_config(tmp_path / "config.yaml", grid)]
    process = subprocess.Popen(
        [*command, "--jobs", "2"], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    logs = [Path(grid["output_dir"]) / f"{name}-seed3" / "trainer_log.jsonl" for name in ("sum", "pcgrad")]
    while not all(log.exists() and len(log.read_bytes().splitlines()) > 2 for log in logs):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    os.kill(int(children[0]), signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "its process ended with exit code -9" in error.splitlines()[-1]
    assert not any(Path(f"/proc/{child}").exists() for child in children)
