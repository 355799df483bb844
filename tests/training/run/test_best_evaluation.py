"""The result of a run is its best evaluation, an early stop comes when it should, and a resume changes neither."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from launch import torchrun
from safetensors.torch import load_file
from tiny_comparison import compare, lines_by_run
from tiny_run import TASKS, config_of, log_lines, mostly_slow, write_config

from mtl_opt.errors import InputError
from mtl_opt.training import train
from mtl_opt.training.run.best_evaluation import BestEvaluation
from mtl_opt.training.run.measurement import evaluate_folder
from mtl_opt.training.setup.selection import Selection

BUMPY = {  # the mean loss goes 4.80 4.19 4.33 3.96 4.71 5.02 4.08 3.91 4.09 4.97
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "max_steps": 10,
    "eval_steps": 1,
    "metric_for_best_model": "loss",
}
KEPT = {**BUMPY, "load_best_model_at_end": True}
RESUME = {"resume_from_checkpoint": True}
TIMES = {"train_runtime", "evaluation_runtime", "overhead_seconds", "steps_per_second", "time", "peak_memory_mb"}
CLS = {"heads": {"anger": {"type": "classification", "labels": ["yes", "no"]}}}


def evaluations(folder: Path) -> dict[int, dict[str, float]]:
    """Map steps to the evaluations in the log."""
    return {line["current_steps"]: line for line in log_lines(folder) if "lr" not in line}


def comparable(results):
    return {key: value for key, value in results.items() if key not in TIMES}


def checkpoint_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{name}": value
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            {},
            {"finetuning_type": "full", "learning_rate": 0.02, "max_steps": 10, "seed": 7},
            {"sharing": "private_layers"},
            {"sharing": "mtl_lora", **CLS, "learning_rate": 0.3},
            {**CLS, "finetuning_type": "full", "learning_rate": 0.03},
            {"quantization_bit": 4},
            {"combiner": "uncertainty", "use_dora": True},
        ],
        fast=[{}, {"sharing": "mtl_lora", **CLS, "learning_rate": 0.3}],
    ),
    ids=lambda changes: "-".join(map(str, changes)) or "plain",
)
def test_the_result_is_the_best_evaluation(settings, tmp_path, changes):
    folder = tmp_path / "run"
    results = train(config_of({**settings, **KEPT, **changes}))
    logged = evaluations(folder)
    assert list(logged) == list(range(11))
    mean = {step: sum(line[f"eval_{task}_loss"] for task in TASKS) / 3 for step, line in logged.items() if step}
    best = min(mean, key=mean.__getitem__)
    assert best < 10, "the test shows nothing where the last step is the best"
    assert results["best"]["step"] == best
    assert results["best"]["value"] == pytest.approx(mean[best])
    for task in TASKS:
        assert results[f"eval_{task}_loss"] == pytest.approx(logged[best][f"eval_{task}_loss"], abs=1e-5)
    saved, kept = weights_of(folder), weights_of(folder / f"checkpoint-{best}")
    assert saved
    assert saved.keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in saved.items())
    again = evaluate_folder(folder)
    assert again == pytest.approx({key: value for key, value in results.items() if key.startswith("eval_")}, abs=1e-5)


def test_every_task_has_its_own_best_step(settings, tmp_path):
    settings["tasks"] = {task: {**entry, "metrics": ["loss"]} for task, entry in settings["tasks"].items()}
    results = train(config_of({**settings, **BUMPY}))
    logged = evaluations(tmp_path / "run")
    for task in TASKS:
        losses = {step: line[f"eval_{task}_loss"] for step, line in logged.items() if step}
        step = min(losses, key=losses.__getitem__)
        assert results["best"]["tasks"][task] == {"metric": "loss", "step": step, "value": losses[step]}
    assert len({one["step"] for one in results["best"]["tasks"].values()}) > 1
    assert results["eval_qa_loss"] == logged[10]["eval_qa_loss"], "without `load_best_model_at_end` the last counts"
    assert checkpoint_names(tmp_path / "run") == []


def test_a_run_stops_when_nothing_improves(settings, tmp_path, caplog):
    caplog.set_level("INFO")
    changes = {"early_stopping_patience": 3, "logging_steps": 4}
    results = train(config_of({**settings, **BUMPY, **changes}))
    assert results["train_steps"] == 7
    assert results["stopped_early"] is True
    assert results["best"]["step"] == 4
    lines = log_lines(tmp_path / "run")
    assert [line["current_steps"] for line in lines if "lr" in line] == [4, 7], "the rest of the window is written"
    assert list(evaluations(tmp_path / "run")) == list(range(8))
    assert "Stopped after step 7 of 10: 3 evaluations in a row brought no improvement of `loss`" in caplog.text
    losses = [line["loss_qa"] for line in lines if "lr" in line]
    assert len(losses) == 2


def test_a_threshold_decides_what_improves(settings):
    changes = {"early_stopping_patience": 2, "early_stopping_threshold": 0.5}
    results = train(config_of({**settings, **BUMPY, **changes}))  # 4.80, 4.19 by 0.6, then 4.33 and 3.96
    assert results["train_steps"] == 4
    assert results["best"]["step"] == 4, "a smaller gain is the best none the less"


@pytest.mark.slow
@pytest.mark.parametrize("patience", [None, 3])
def test_a_resume_gives_the_same_best_and_the_same_bits(settings, tmp_path, patience):
    settings |= {**KEPT, "early_stopping_patience": patience, "save_steps": 1, "lora_dropout": 0.3}
    settings |= {"learning_rate": 0.3, "max_steps": 8}
    whole = train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    wanted = (tmp_path / "whole" / "adapter_model.safetensors").read_bytes()
    steps = whole["train_steps"]
    assert whole["stopped_early"] == (patience is not None)
    for step in range(steps - (patience is None), 0, -1):  # with an early stop, killed after the last checkpoint too
        again = tmp_path / f"again-{step}"
        shutil.copytree(tmp_path / "whole", again)
        for path in again.iterdir():
            if path.name.startswith("checkpoint-") and int(path.name.split("-")[1]) > step:
                shutil.rmtree(path)
            elif path.name.startswith("adapter") or path.name == "all_results.json":
                path.unlink()
        results = train(config_of({**settings, **RESUME, "output_dir": str(again)}))
        assert comparable(results) == comparable(whole)
        assert (again / "adapter_model.safetensors").read_bytes() == wanted
        assert list(evaluations(again)) == list(evaluations(tmp_path / "whole"))
        assert len(log_lines(again)) == len(log_lines(tmp_path / "whole"))


@pytest.mark.parametrize(("limit", "wanted"), [(1, {4, 7}), (2, {4, 7}), (3, {4, 6, 7})])
def test_the_limit_keeps_the_best_checkpoint(settings, tmp_path, limit, wanted):
    changes = {"save_steps": 1, "save_total_limit": limit, "early_stopping_patience": 3}
    train(config_of({**settings, **KEPT, **changes}))
    assert set(checkpoint_names(tmp_path / "run")) == {f"checkpoint-{step}" for step in wanted}


def test_a_best_checkpoint_follows_into_another_folder_or_is_missed(settings, tmp_path):
    settings |= {**KEPT, "max_steps": 6, "save_steps": 6}
    whole = train(config_of(settings))
    run = tmp_path / "run"
    assert checkpoint_names(run) == ["checkpoint-1", "checkpoint-2", "checkpoint-4", "checkpoint-6"]
    moved = {"output_dir": str(tmp_path / "other"), "resume_from_checkpoint": str(run / "checkpoint-6")}
    assert comparable(train(config_of({**settings, **moved}))) == comparable(whole)
    assert (tmp_path / "other" / "checkpoint-4").is_dir()
    shutil.rmtree(run / "checkpoint-4")
    with pytest.raises(InputError, match=r"needs `.*checkpoint-4` beside it, the best so far"):
        train(config_of({**settings, **moved, "output_dir": str(tmp_path / "third")}))


def test_what_is_counted_survives_json():
    how = Selection("loss", {"a": "exact_match"}, ("a",), higher=False, patience=2, threshold=0.1)
    best = BestEvaluation()
    found = [
        best.add(how, {"eval_a_loss": loss, "eval_a_exact_match": hits}, step)
        for step, (loss, hits) in enumerate([(2.0, 0.1), (1.95, 0.1), (float("nan"), 0.3), (1.99, 0.2)], 1)
    ]
    assert found == [True, True, False, False]
    assert best.waiting == 3
    assert best.results() == {
        "metric": "loss", "step": 2, "value": 1.95, "tasks": {"a": {"metric": "exact_match", "step": 3, "value": 0.3}},
    }  # fmt: skip
    assert BestEvaluation.from_json(json.loads(json.dumps(best.to_json()))) == best
    assert not best.add(how, {"eval_a_loss": 0.0}, 4), "the evaluation of a checkpoint is not counted twice"


@pytest.mark.slow
def test_two_processes_judge_alike_and_load_what_is_spread(settings, tmp_path):
    settings |= {**KEPT, "early_stopping_patience": 3, "finetuning_type": "full", "learning_rate": 0.3}
    path = write_config(tmp_path / "two.yaml", {**settings, "rows_per_task": 1, "fsdp": "full"})
    done = torchrun(2, "-m", "mtl_opt.cli", "train", path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "all_results.json").read_text(encoding="utf-8"))
    best = results["best"]["step"]
    assert results["stopped_early"]
    assert best == results["train_steps"] - 3
    saved, kept = weights_of(tmp_path / "run"), weights_of(tmp_path / "run" / f"checkpoint-{best}")
    assert saved.keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in saved.items())


@pytest.mark.slow
def test_the_runs_of_a_comparison_stop_and_keep_their_best(settings, tmp_path):
    changes = {"combiners": ["sum"], "seeds": [0], "early_stopping_patience": 3, "learning_rates": [0.1, 0.01]}
    settings |= {**KEPT, **changes, "max_steps": 8}
    assert compare(settings, tmp_path) == 0
    lines = lines_by_run(settings)
    for name, line in lines.items():
        results = json.loads((tmp_path / "run" / name / "all_results.json").read_text(encoding="utf-8"))
        steps = evaluations(tmp_path / "run" / name)
        assert line["steps"] == results["train_steps"] == max(steps)
        best = steps[results["best"]["step"]]
        for task in line["tasks"]:
            assert line["metrics"][f"eval_{task}_loss"] == pytest.approx(best[f"eval_{task}_loss"], abs=1e-5)
    assert any(line["steps"] < 8 for line in lines.values())
