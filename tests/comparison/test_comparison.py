"""Comparisons: fair pairs, one line per run, nothing trained twice."""

import json
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
from tiny_comparison import compare, lines_by_run, lines_of
from tiny_run import TASKS, digest, log_lines, write_config

from mtl_opt import cli
from mtl_opt.report import comparison_table

KEYS = {
    "run", "role", "method", "combiner", "sharing", "mixing", "norm_matched", "learning_rate", "seed", "task", "tasks",
    "metrics", "non_finite", "before", "directions", "main_metric", "eval_rows", "conflict_rate", "steps_per_second",
    "peak_memory_mb", "train_runtime", "evaluation_runtime", "overhead_seconds", "steps", "provenance", "config",
    "auxiliary", "rows", "pull",
}  # fmt: skip


@pytest.fixture
def comparison(grid, tmp_path):
    return {**grid, "output_dir": str(tmp_path / "比较")}


def runs_only(files):
    """Keep what lies in run folders; tables and the plan of the grid beside them say what the last call did."""
    return {name: value for name, value in files.items() if "/" in name}


def test_one_line_and_one_folder_per_run_and_a_table(comparison, tmp_path, capsys):
    assert compare(comparison, tmp_path) == 0
    lines = lines_of(comparison)
    names = ["sum-seed3", "pcgrad-seed3", *(f"single-{task}-seed3" for task in TASKS)]
    assert [line["run"] for line in lines] == names
    assert all(set(line) == KEYS for line in lines)
    for line in lines:
        folder = Path(comparison["output_dir"]) / line["run"]
        results = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
        measured = line["tasks"]
        wanted = {f"eval_{task}_{metric}" for task in measured for metric in ("loss", "exact_match")}
        assert set(line["metrics"]) == set(line["before"]) == wanted
        assert {key: results[key] for key in wanted} == line["metrics"]
        assert (folder / "adapter_model.safetensors").exists()
        assert line["config"]["seed"] == line["seed"] == 3
    assert [line["task"] for line in lines] == [None, None, *TASKS]
    assert [line["combiner"] for line in lines] == ["sum", "pcgrad", "single", "single", "single"]
    assert lines[0]["tasks"] == list(TASKS)
    assert lines[2]["tasks"] == ["qa"]
    out = capsys.readouterr().out
    assert out.startswith(comparison_table(lines))
    assert f"tensorboard --logdir {comparison['output_dir']}" in out
    for line in lines:  # the rows of the HParams table
        (file,) = (Path(comparison["output_dir"]) / line["run"] / "runs").glob("*.hparams")
        assert all(word.encode() in file.read_bytes() for word in (line["method"], "learning_rate", "eval_摘要_loss"))


def test_a_second_call_trains_nothing_and_prints_the_same(comparison, tmp_path, capsys):
    compare(comparison, tmp_path)
    before, printed = digest(Path(comparison["output_dir"])), capsys.readouterr().out
    assert compare(comparison, tmp_path) == 0
    assert digest(Path(comparison["output_dir"])) == before
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_a_new_combiner_or_seed_trains_only_what_is_missing(comparison, tmp_path):
    compare(comparison, tmp_path)
    before = digest(Path(comparison["output_dir"]))
    assert compare(comparison, tmp_path, "combiners=[sum, mean]", "seeds=[3, 4]") == 0
    after = digest(Path(comparison["output_dir"]))
    assert {name: after[name] for name in before if "/" in name} == runs_only(before)
    assert [line["run"] for line in lines_of(comparison)[5:]] == [
        "mean-seed3", "sum-seed4", "mean-seed4", *(f"single-{task}-seed4" for task in TASKS)
    ]  # fmt: skip


def test_what_the_runs_have_in_common_is_logged_once_and_what_happens_in_one_every_time(comparison, tmp_path, caplog):
    comparison |= {"save_steps": 1, "baselines": False, "seeds": [3, 4]}
    with caplog.at_level("INFO", "mtl_opt"):
        assert compare(comparison, tmp_path) == 0
        folder = Path(comparison["output_dir"])
        (folder / "results.jsonl").unlink()
        for name in ("sum-seed3", "pcgrad-seed3"):  # killed before their last step
            (folder / name / "all_results.json").unlink()
            shutil.rmtree(folder / name / "checkpoint-2")
        first = len(caplog.records)
        assert compare(comparison, tmp_path) == 0
    messages = [record.getMessage() for record in caplog.records]
    for called in (messages[:first], messages[first:]):
        assert sum(text.startswith("Gradient engine ") for text in called) == 1
        assert sum(text.startswith("Sharing ") for text in called) == 1
    assert messages[first:].count("Going on after step 1 of 2.") == 2
    assert sum("holds a finished run" in text for text in messages[first:]) == 1  # of two


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_torn_last_line_is_healed_without_training_again(comparison, tmp_path, end):
    comparison["baselines"] = False
    compare(comparison, tmp_path)
    path = Path(comparison["output_dir"]) / "results.jsonl"
    whole = path.read_bytes()
    before = digest(Path(comparison["output_dir"]))
    path.write_bytes(whole[: whole.rindex("摘".encode()) + 2] + end.encode())  # inside a Chinese character
    assert compare(comparison, tmp_path) == 0
    assert [line["run"] for line in lines_of(comparison)] == ["sum-seed3", "pcgrad-seed3"]
    after = digest(Path(comparison["output_dir"]))
    assert runs_only(after) == runs_only(before)
    assert path.read_bytes() == whole


def test_a_line_without_its_line_break_is_not_run_into_the_next(comparison, tmp_path):
    comparison["baselines"] = False
    compare(comparison, tmp_path, "combiners=sum")
    path = Path(comparison["output_dir"]) / "results.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert compare(comparison, tmp_path) == 0
    assert [line["run"] for line in lines_of(comparison)] == ["sum-seed3", "pcgrad-seed3"]


def test_other_settings_are_refused_naming_key_and_values(comparison, tmp_path, refused):
    comparison["baselines"] = False
    compare(comparison, tmp_path)
    before = digest(Path(comparison["output_dir"]))
    sentence = refused(comparison, "learning_rate=0.5", verb="compare")
    assert "`learning_rate` = 0.01" in sentence
    assert "0.5" in sentence
    assert "combiner_args" in refused(comparison, "combiner_args={pcgrad: {seed: 7}}", verb="compare")
    assert digest(Path(comparison["output_dir"])) == before


def test_an_interrupted_comparison_goes_on_where_it_was(comparison, tmp_path):
    comparison |= {"save_steps": 1, "max_steps": 3, "baselines": False, "lora_dropout": 0.2}
    compare(comparison, tmp_path)
    folder = Path(comparison["output_dir"])
    whole = (folder / "pcgrad-seed3" / "adapter_model.safetensors").read_bytes()
    first = digest(folder / "sum-seed3")
    results = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "results.jsonl").write_text(results[0], encoding="utf-8")
    for path in (folder / "pcgrad-seed3").iterdir():
        if path.name in {"checkpoint-2", "checkpoint-3"}:
            shutil.rmtree(path)
        elif path.name.startswith("adapter") or path.name == "all_results.json":
            path.unlink()
    assert compare(comparison, tmp_path) == 0
    assert (folder / "pcgrad-seed3" / "adapter_model.safetensors").read_bytes() == whole
    assert digest(folder / "sum-seed3") == first
    assert [line["run"] for line in lines_of(comparison)] == ["sum-seed3", "pcgrad-seed3"]


def test_at_one_seed_every_method_sees_the_same_rows_and_the_same_initial_adapters(comparison, tmp_path):
    combiners = ["sum", "mean", "pcgrad", "gradnorm"]
    comparison |= {"combiners": combiners, "seeds": [3, 4], "learning_rate": 1e-12, "lora_dropout": 0.2}
    compare({**comparison, "max_steps": 3}, tmp_path)
    folder = Path(comparison["output_dir"])
    losses = {}
    for seed in (3, 4):
        runs = {name: log_lines(folder / f"{name}-seed{seed}") for name in combiners}
        losses[seed] = [[line[f"loss_{task}"] for task in TASKS] for line in runs["sum"] if "lr" in line]
        for name in combiners:
            found = [[line[f"loss_{task}"] for task in TASKS] for line in runs[name] if "lr" in line]
            torch.testing.assert_close(found, losses[seed], rtol=1e-6, atol=0)
            assert found[0] == losses[seed][0]
    assert losses[3] != losses[4]
    initial = [load_file(folder / f"{name}-seed3" / "adapter_model.safetensors") for name in combiners]
    for name, tensor in initial[0].items():
        for other in initial[1:]:
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-9)


def test_a_baseline_is_a_run_of_one_task(comparison, tmp_path):
    compare(comparison, tmp_path, "combiners=sum")
    single = Path(comparison["output_dir"]) / "single-摘要-seed3"
    joint = Path(comparison["output_dir"]) / "sum-seed3"
    lines = [line for line in log_lines(single) if "lr" in line]
    assert {key for key in lines[0] if key.startswith("loss_")} == {"loss_摘要"}
    # A task's rows and the initial adapters depend on the seed alone: its first loss is that of the joint run.
    first = next(line for line in log_lines(joint) if "lr" in line)
    assert lines[0]["loss_摘要"] == pytest.approx(first["loss_摘要"], rel=1e-5)


def test_an_error_in_a_run_names_the_run(comparison, tmp_path, capsys):
    folder = Path(comparison["output_dir"]) / "sum-seed3"
    folder.mkdir(parents=True)
    (folder / "all_results.json").write_text("{", encoding="utf-8")
    assert compare(comparison, tmp_path) == 2
    assert "error: Run `sum-seed3`: `" in capsys.readouterr().err


def test_a_run_that_diverges_is_shown_and_the_others_are_trained(comparison, tmp_path, capsys):
    comparison |= {"learning_rates": [1e18], "max_steps": 9, "combiners": ["sum"], "baselines": False}
    assert compare(comparison, tmp_path) == 0
    (line,) = lines_of(comparison)
    assert line["metrics"] == {f"eval_{t}_{m}": None for t in TASKS for m in ("loss", "exact_match")}
    assert "not finite" in line["non_finite"][0]
    assert line["steps_per_second"] is None
    out = capsys.readouterr().out
    assert "nan (1 of 1)" in out
    assert "Not finite: `sum-seed3`: " in out


def test_a_folder_of_a_single_run_is_refused(comparison, settings, tmp_path, refused):
    config = write_config(tmp_path / "one.yaml", settings)
    assert cli.main(["train", config]) == 0
    before = digest(Path(settings["output_dir"]))
    assert "`output_dir`" in refused({**comparison, "output_dir": settings["output_dir"]}, verb="compare")
    assert digest(Path(settings["output_dir"])) == before


@pytest.mark.slow
def test_ctrl_c_stops_the_comparison_and_the_next_call_goes_on(comparison, tmp_path):
    comparison |= {"max_steps": 200, "baselines": False, "lora_dropout": 0.2}
    assert compare({**comparison, "output_dir": str(tmp_path / "whole")}, tmp_path) == 0
    config = write_config(tmp_path / "config.yaml", comparison)
    command = [sys.executable, "-m", "mtl_opt.cli", "compare", config]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = Path(comparison["output_dir"]) / "pcgrad-seed3" / "trainer_log.jsonl"
    while not log.exists() or len(log.read_bytes().splitlines()) < 20:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("mtl-opt: Stopped after step ")
    assert "Traceback" not in error
    assert [line["run"] for line in lines_of(comparison)] == ["sum-seed3"]
    assert cli.main(["compare", config]) == 0
    for name in ("sum-seed3", "pcgrad-seed3"):
        file = Path(name) / "adapter_model.safetensors"
        assert (Path(comparison["output_dir"]) / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_after_a_resume_only_the_seconds_of_this_call_count_as_busy(grid, tmp_path):
    grid |= {"baselines": False, "save_steps": 1, "combiners": ["sum"], "seeds": [3, 4]}
    assert compare(grid, tmp_path) == 0
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
    assert compare(grid, tmp_path) == 0
    assert lines_by_run(grid)["sum-seed3"]["train_runtime"] > 1000
    found = json.loads((folder / "grid.json").read_text(encoding="utf-8"))
    assert 0 < found["busy_seconds"] < found["wall_seconds"]
    assert 0 < found["overhead_share"] < 1


@pytest.mark.parametrize(
    ("matched", "clip", "said"), [("both", 1.0, True), (True, 0.5, True), ("both", 0, False), (False, 1.0, False)]
)
def test_norm_matching_below_a_clip_is_said_to_show_little(grid, tmp_path, caplog, matched, clip, said):
    grid |= {"norm_matched": matched, "max_grad_norm": clip, "baselines": False, "combiners": ["sum"], "max_steps": 1}
    with caplog.at_level("INFO", "mtl_opt"):
        assert compare(grid, tmp_path) == 0
    found = [record.getMessage() for record in caplog.records if "norm_matched" in record.getMessage()]
    found = [text for text in found if "clipped" in text]
    assert len(found) == said
    for text in found:
        assert f"`max_grad_norm: {clip:g}`" in text
        assert all(word in text for word in ("Adam", "`max_grad_norm: 0` with `optim: sgd`"))
