"""Exports of runs: the same logits in plain transformers and peft, complete or not at all, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_run import config_of
from transformers import AutoModelForCausalLM

from mtl_opt import cli
from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.deploy.export_folders import ExportOptions, export
from mtl_opt.deploy.trained_run import open_trained
from mtl_opt.errors import InputError
from mtl_opt.models import SHARING
from mtl_opt.training import train

TOKENS = torch.tensor([[50, 90, 31, 41, 7, 77, 12], [80, 8, 4, 90, 120, 3, 200]])
QUICK = {"max_new_tokens": 1, "rows_per_task": 1, "learning_rate": 0.03}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model_folder, task_files):
    """Train each way of sharing once, when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def run(name: str = "private_layers", **changes) -> Path:
        key = json.dumps([name, changes], sort_keys=True)
        if key not in done:
            output = folder / str(len(done))
            settings = {
                "model_name_or_path": model_folder, "tasks": task_files, "output_dir": str(output), "sharing": name,
                "lora_rank": 2, "max_steps": 4, "cutoff_len": 48, "logging_steps": 4, "save_steps": None,
            }  # fmt: skip
            train(config_of(settings, **{**QUICK, **changes}))
            done[key] = output
        return done[key]

    return run


def own_logits(run: Path, task: str) -> torch.Tensor:
    trained = open_trained(run)
    with torch.no_grad(), task_rows(torch.full((2,), trained.tasks.index(task))):
        return trained.model()(input_ids=TOKENS).logits.float()


def head_logits(run: Path, task: str) -> torch.Tensor:
    trained = open_trained(run)
    model, ids = trained.model().float(), torch.full((2,), trained.tasks.index(task))
    with torch.no_grad(), task_rows(ids):
        return model.outputs(TaskBatch(TOKENS, torch.ones_like(TOKENS), TOKENS, ids))[0].values


def plain_logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=TOKENS).logits


def fresh_logits(tmp_path: Path, *arguments: Path) -> torch.Tensor:
    torch.save(TOKENS, tmp_path / "tokens.pt")
    script = Path(__file__).parent / "fresh_process.py"
    command = [sys.executable, script, tmp_path / "tokens.pt", tmp_path / "out.pt", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(tmp_path / "out.pt", weights_only=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "hard"},
        pytest.param({"name": "hard", "finetuning_type": "full"}, marks=pytest.mark.slow),
        pytest.param({"name": "hard", "quantization_bit": 4}, marks=pytest.mark.slow),
    ],
)
def test_exported_models_give_the_same_logits(runs, tmp_path, changes):
    run = runs(**changes)
    folders = export(run, ExportOptions(str(tmp_path / "out"), dequantize="quantization_bit" in changes))
    assert list(folders) == ["qa", "摘要", "anger"]
    for task, folder in folders.items():
        assert torch.allclose(plain_logits(folder), own_logits(run, task), atol=1e-5)
    about = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert about["form"] == "merged"
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["private_layers", "hard"])
def test_a_fresh_process_with_plain_transformers_and_peft_gives_the_same_logits(runs, tmp_path, name, model_folder):
    run = runs(name)
    merged = export(run, ExportOptions(str(tmp_path / "merged"), tasks=("摘要",)))
    adapters = export(run, ExportOptions(str(tmp_path / "peft"), adapter=True))
    expected = own_logits(run, "摘要")
    assert torch.allclose(fresh_logits(tmp_path, merged["摘要"]), expected, atol=1e-5)
    assert torch.allclose(fresh_logits(tmp_path, model_folder, adapters["摘要"]), expected, atol=1e-5)
    left = run / "adapters" / "摘要" if name == "private_layers" else run
    assert torch.allclose(fresh_logits(tmp_path, model_folder, left), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SHARING if n != "hard"])
def test_every_way_of_sharing_is_exported_or_says_why_not(runs, tmp_path, name):
    run = runs(name)
    if (run / "adapters").exists():
        folders = export(run, ExportOptions(str(tmp_path / "out")))
        for task, folder in folders.items():
            assert torch.allclose(plain_logits(folder), own_logits(run, task), atol=1e-5)
    else:
        with pytest.raises(InputError, match=f"`sharing: {name}`: "):
            export(run, ExportOptions(str(tmp_path / "out"), adapter=True))
        assert not (tmp_path / "out").exists()


def test_a_4_bit_base_is_refused_with_the_ways_out_and_dequantised_on_demand(runs, tmp_path, caplog):
    run = runs(quantization_bit=4)
    with pytest.raises(InputError, match=r"4-bit base, whose coarse numbers .* `--dequantize` .* `--adapter`"):
        export(run, ExportOptions(str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []
    folders = export(run, ExportOptions(str(tmp_path / "out"), tasks=("qa",), dequantize=True))
    assert torch.allclose(plain_logits(folders["qa"]), own_logits(run, "qa"), atol=1e-5)
    assert "quantization_config" not in json.loads((folders["qa"] / "config.json").read_text())
    folders = export(run, ExportOptions(str(tmp_path / "other"), tasks=("qa",)), ["quantization_bit=null"])
    assert "another model" in caplog.text
    assert not torch.allclose(plain_logits(folders["qa"]), own_logits(run, "qa"), atol=1e-3)


TEXT_HEADS = {"qa": {"type": "lm", "rank": 2}, "摘要": {"type": "lm", "rank": 3, "alpha": 5}}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"name": "soft"}, marks=pytest.mark.slow),
        {"name": "hard"},
        pytest.param({"name": "hard", "finetuning_type": "full"}, marks=pytest.mark.slow),
        pytest.param({"name": "soft", "bf16": True}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings")
def test_private_output_adapters_are_merged_into_the_output_layer_of_their_task(runs, tmp_path, changes, model_folder):
    run = runs(**changes, heads=TEXT_HEADS, learning_rate=0.1)
    dtype = "float32" if "bf16" in changes else None
    folders = export(run, ExportOptions(str(tmp_path / "out"), dtype=dtype))
    assert {folder.name for folder in folders.values()} == {"qa", "摘要", "anger"}
    for task, folder in folders.items():
        assert torch.allclose(plain_logits(folder), head_logits(run, task), atol=1e-5)
        assert not (folder / "heads.json").exists()  # it would be added twice
    assert not torch.allclose(head_logits(run, "qa"), head_logits(run, "anger"), atol=1e-3)
    if "finetuning_type" in changes:
        return
    adapters = export(run, ExportOptions(str(tmp_path / "peft"), adapter=True))
    for task, folder in adapters.items():
        base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=open_trained(run).model().config.dtype).float()
        with torch.no_grad():
            found = PeftModel.from_pretrained(base, str(folder)).eval()(input_ids=TOKENS).logits
        assert torch.allclose(found, head_logits(run, task), atol=1e-5)


def test_a_merge_that_answers_otherwise_is_refused_and_leaves_nothing(runs, tmp_path, monkeypatch):
    run = runs()
    monkeypatch.setattr("mtl_opt.deploy.export_folders.merge", lambda model, _, dtype: model.to(dtype))
    with pytest.raises(InputError, match=r"merged model of task `qa` does not answer as the run does \(outputs up to"):
        export(run, ExportOptions(str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_and_checkpoints_are_exported(runs, tmp_path):
    run = runs(save_steps=2)
    folders = export(run / "checkpoint-2", ExportOptions(str(tmp_path / "early"), tasks=("qa",), dtype="bfloat16"))
    model = AutoModelForCausalLM.from_pretrained(folders["qa"])
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        early = model.float()(input_ids=TOKENS).logits
    assert torch.allclose(early, own_logits(run / "checkpoint-2", "qa"), atol=0.1)


def test_the_generation_settings_of_the_base_are_kept(runs, tmp_path, model_folder):
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**settings, "do_sample": True, "top_k": 17}))
    folders = export(runs(), ExportOptions(str(tmp_path / "out")), [f"model_name_or_path={base}"])
    for folder in folders.values():
        assert json.loads((folder / "generation_config.json").read_text())["top_k"] == 17


def test_hydra_is_kept_in_its_own_form_and_the_log_says_so(runs, tmp_path, caplog):
    caplog.set_level("INFO")
    run = runs("hydra", seed=7)  # not one that another test has trained unseen
    assert "Saved in our own form only: `RoutedLora`" in caplog.text
    assert not (run / "adapters").exists()
    with pytest.raises(InputError, match=r"`sharing: hydra`: there is no plain model to export, since `RoutedLora`"):
        export(run, ExportOptions(str(tmp_path / "out")))


def test_a_failed_export_leaves_nothing_and_an_unfinished_one_is_replaced(runs, tmp_path, monkeypatch):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "torn").write_text("left by a kill")
    monkeypatch.setattr(
        "mtl_opt.deploy.export_folders.write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(InputError, match="cannot be written"):
        export(runs(), ExportOptions(str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []


BAD = {
    "an unknown task": (["--task", "qq"], "Unknown task `qq`. Did you mean `qa`? Allowed: anger, qa, 摘要."),
    "an unknown format": (["--dtype", "bf16"], "Unknown value of `--dtype`: `bf16`."),
    "no quantised base": (["--dequantize"], "`--dequantize` writes a 4-bit base out in full; this run has"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_export_refuses_is_one_sentence(case, runs, tmp_path, capsys):
    arguments, sentence = BAD[case]
    assert cli.main(["export", str(runs()), f"export_dir={tmp_path}/out", *arguments]) == 2
    assert f"mtl-opt: error: {sentence}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit_are_refused(runs, tmp_path, capsys, model_folder):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert cli.main(["export", str(runs()), f"export_dir={tmp_path}/full"]) == 2
    assert f"`export_dir`: `{tmp_path}/full` is not empty" in capsys.readouterr().err
    assert os.listdir(tmp_path / "full") == ["notes.txt"]
    assert cli.main(["export", model_folder]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "nowhere")]) == 2
    assert "There is no run or configuration" in capsys.readouterr().err


def test_the_command_line_prints_where_each_task_went(runs, tmp_path, capsys):
    assert cli.main(["export", str(runs()), f"export_dir={tmp_path}/out", "--task", "摘要", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"摘要": f"{tmp_path}/out/摘要"}
