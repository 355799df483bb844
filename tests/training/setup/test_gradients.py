"""`mtl-opt train` with every way to compute and keep task gradients."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import config_of, log_lines, mostly_slow

from mtl_opt.training import train
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.step import training_step
from mtl_opt.training.setup.data import prepare


def weights_of(folder) -> torch.Tensor:
    (path,) = Path(folder).glob("*.safetensors")
    tensors = load_file(path)
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def trained(settings, tmp_path, name, **changes) -> torch.Tensor:
    train(config_of(settings, output_dir=str(tmp_path / name), **changes))
    return weights_of(tmp_path / name)


def distance(found, wanted) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
@pytest.mark.parametrize("combiner", mostly_slow(["pcgrad", "uncertainty", "gradnorm", "sdmgrad"], ["pcgrad"]))
def test_every_engine_learns_the_same(settings, tmp_path, finetuning_type, combiner):
    settings |= {"finetuning_type": finetuning_type, "combiner": combiner}
    wanted = trained(settings, tmp_path, "per_task", gradient_engine="per_task")
    for engine in ("two_pass", "one_pass" if finetuning_type == "lora" else "auto"):  # the full model ties its head
        if finetuning_type == "full" and engine == "two_pass":
            continue
        assert distance(trained(settings, tmp_path, engine, gradient_engine=engine), wanted) < 1e-4, engine


def test_rows_in_bfloat16_learn_nearly_the_same_and_rows_on_the_cpu_the_same(settings, tmp_path):
    settings["combiner"] = "pcgrad"
    wanted = trained(settings, tmp_path, "float32")
    assert torch.equal(trained(settings, tmp_path, "cpu", gradient_buffer_device="cpu"), wanted)
    assert 0 < distance(trained(settings, tmp_path, "bfloat16", gradient_buffer_dtype="bfloat16"), wanted) < 0.05


def test_a_float16_run_skips_what_overflows_and_learns_the_rest(settings, tmp_path):
    settings |= {"fp16": True, "combiner": "gradnorm", "max_steps": 12, "output_dir": str(tmp_path / "run")}
    results = train(config_of(settings))
    lines = [line for line in log_lines(tmp_path / "run") if "lr" in line]
    assert results["steps_skipped"] == sum("loss" not in line for line in lines)
    assert results["eval_qa_loss"] < results["before_eval_qa_loss"]
    assert json.dumps(results, allow_nan=False)


def test_a_step_that_overflows_moves_neither_model_nor_optimizer_nor_combiner(settings):
    config = config_of(settings, fp16=True, combiner="gradnorm")
    run = build_run(config, prepare(config))
    scaler = run.parts.grads.scaler
    assert scaler is not None
    scaler.scale = 8.0
    assert not training_step(run.parts, run.next_batches(), 1).skipped
    scaler.scale = 2.0**40
    state = run.parts.combiner.state_dict()
    moments = {key: value["exp_avg"].clone() for key, value in run.parts.optimizer.state_dict()["state"].items()}
    weights = [p.clone() for p in run.parts.model.parameters()]
    event = training_step(run.parts, run.next_batches(), 2)
    assert event.skipped
    assert scaler.scale == 2.0**39
    assert all(torch.equal(a, b) for a, b in zip(weights, run.parts.model.parameters(), strict=True))
    for key, value in run.parts.optimizer.state_dict()["state"].items():
        assert torch.equal(value["exp_avg"], moments[key])
    for key, value in run.parts.combiner.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, state[key])
    assert run.parts.scheduler.last_epoch == 1


@pytest.mark.parametrize("changes", [{"denoised": 20}, {"gradient_window": 20}], ids=["denoised", "window"])
def test_windows_go_on_after_a_resume(settings, tmp_path, changes):
    settings |= {**changes, "combiner": "mgda", "max_steps": 6, "save_steps": 3, "output_dir": str(tmp_path / "run")}
    train(config_of(settings))
    wanted = weights_of(tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint-6" / "gradients.pt", weights_only=True)
    assert len(state["window"]["blocks"]) == 3
    (tmp_path / "run" / "all_results.json").unlink()
    for path in (tmp_path / "run" / "checkpoint-6").iterdir():
        path.unlink()
    (tmp_path / "run" / "checkpoint-6").rmdir()
    train(config_of(settings, resume_from_checkpoint=True))
    assert torch.equal(weights_of(tmp_path / "run"), wanted)
    again = torch.load(tmp_path / "run" / "checkpoint-6" / "gradients.pt", weights_only=True)
    assert torch.equal(again["window"]["blocks"], state["window"]["blocks"])


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["gradient_engine=two_pass", "gradient_accumulation_steps=2"], "one micro-batch per step"),
        (["gradient_engine=two_pass", "combiner=graddrop"], "`gradient_engine: two_pass` keeps no rows"),
        (["gradient_engine=two_pass", "gradient_window=20"], "keeps no rows"),
        (["gradient_window=15"], "multiple of 10"),
        (["gradient_window=40", "denoised=20", "combiner=mgda"], "`gradient_window: 40` is not that of `denoised: 20`"),
        (["bf16=true", "fp16=true"], "`bf16` and `fp16` are both true"),
        (["combiner=sdmgrad", "rows_per_task=1"], "in one half of its rows only"),
        (["fsdp=full"], "spreads the model over processes, and this is one"),
    ],
)
def test_settings_that_do_not_go_together(settings, refused, changes, part):
    assert part in refused(settings, *changes)
