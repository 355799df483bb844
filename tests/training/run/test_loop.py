"""What a run writes, and that what it writes is true."""

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import TASKS, config_of, log_lines, mostly_slow, rows_of, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

from mtl_opt.combiners import COMBINERS
from mtl_opt.training import train
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.measurement import evaluate_folder
from mtl_opt.training.setup.data import prepare

PAIRS = ("qa_摘要", "qa_anger", "摘要_anger")
CHAT = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def folder_of(settings) -> Path:
    return Path(settings["output_dir"])


def evaluation(results):
    return {key: value for key, value in results.items() if key.startswith("eval_")}


def adapter(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_a_run_writes_the_files_of_the_contract_and_nothing_else(settings):
    results = train(config_of(settings))
    folder = folder_of(settings)
    found = {path.name for path in folder.iterdir()}
    wanted = {"adapter_config.json", "adapter_model.safetensors", "trainer_log.jsonl", "all_results.json", "runs"}
    wanted |= {"conflict.jsonl"}
    assert wanted | {"config.yaml"} <= found
    assert found - wanted - {"config.yaml"} <= {
            "README.md", "tokenizer.json", "tokenizer_config.json", "generated_predictions.jsonl"
        }  # fmt: skip
    assert json.loads((folder / "all_results.json").read_text(encoding="utf-8")) == results
    for task in TASKS:
        for key in (f"eval_{task}_loss", f"eval_{task}_exact_match"):
            assert isinstance(results[key], float)
            assert isinstance(results[f"before_{key}"], float)
        assert results[f"eval_{task}_loss"] < results[f"before_eval_{task}_loss"]
    assert results["train_steps"] == 4
    assert results["train_runtime"] > 0
    assert results["epoch"] == pytest.approx(4 * 2 * 3 / 23)


def test_tensorboard_holds_the_numbers_of_the_log(settings):
    train(config_of({**settings, "combiner": "pcgrad", "eval_steps": 2}))
    board = EventAccumulator(str(folder_of(settings) / "runs"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    tags = board.Tags()
    steps = [line for line in log_lines(folder_of(settings)) if "lr" in line]
    assert [line["current_steps"] for line in steps] == [1, 2, 3, 4]
    wanted = [f"{kind}_{task}" for kind in ("loss", "grad_norm", "weight") for task in TASKS]
    wanted += [f"grad_cos_{pair}" for pair in PAIRS] + ["conflict_rate", "learning_rate"]
    for key in wanted:
        events = board.Scalars(f"train/{key}")
        assert [event.step for event in events] == [1, 2, 3, 4], key
        torch.testing.assert_close([e.value for e in events], [line[key] for line in steps], rtol=1e-6, atol=1e-9)
    evaluations = [line for line in log_lines(folder_of(settings)) if "lr" not in line]
    assert [line["current_steps"] for line in evaluations] == [0, 2, 4]
    for task in TASKS:
        for metric in ("loss", "exact_match"):
            events = board.Scalars(f"eval/{task}_{metric}")
            assert [event.step for event in events] == [0, 2, 4]
            logged = [line[f"eval_{task}_{metric}"] for line in evaluations]
            torch.testing.assert_close([event.value for event in events], logged, rtol=1e-6, atol=1e-9)
    assert "train/grad_cosines" in tags["images"]
    assert board.Images("train/grad_cosines")[-1].step == 4
    assert "custom_scalars__config__" in tags["tensors"]


def test_the_adapter_loads_with_plain_peft(settings):
    config = config_of(settings)
    results = train(config)
    folder = folder_of(settings)
    plain = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    base = AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    run = build_run(config, prepare(config), folder)
    run.parts.model.eval()
    ids = tokenizer("Human: 请概括", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, run.parts.model(input_ids=ids).logits)
        assert not torch.equal(plain(ids).logits, base(ids).logits)
    assert results["gradient_engine"] == "one_pass"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"finetuning_type": "full", "learning_rate": 1e-3},
        {"bf16": True},
        {"bf16": True, "finetuning_type": "full"},
        {"only_tasks": ["anger", "摘要"]},
        {"template": "chatml", "cutoff_len": 64},
        {"template": "alpaca", "cutoff_len": 64},
        {"gradient_engine": "per_task"},
        {"lora_target": "q_proj,v_proj", "lora_dropout": 0.3},
        {"eval_steps": 1, "save_steps": 2},
    ],
    ids=str,
)
def test_eval_gives_the_numbers_of_the_results_from_the_files_alone(settings, changes):
    results = train(config_of({**settings, **changes}))
    again = evaluate_folder(folder_of(settings))
    assert again == evaluation(results)
    assert all(results[key] < results[f"before_{key}"] for key in again if key.endswith("_loss"))
    tasks = changes.get("only_tasks", TASKS)
    assert {key.split("_")[1] for key in again} == set(tasks)


def test_full_fine_tuning_saves_a_whole_model(settings):
    train(config_of({**settings, "finetuning_type": "full"}))
    model = AutoModelForCausalLM.from_pretrained(folder_of(settings))
    base = AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"])
    moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize(
    "combiner", mostly_slow(sorted(COMBINERS), ("gradnorm", "pcgrad", "nash_mtl", "famo", "graddrop"))
)
def test_every_combiner_learns_and_moves_every_shared_parameter(settings, combiner):
    config = config_of({**settings, "combiner": combiner, "max_steps": 20, "eval_file": None})
    fresh = build_run(config, prepare(config)).parts.model
    before = {name: p.detach().clone() for name, p in fresh.named_parameters() if p.requires_grad}
    results = train(config)
    after = build_run(config, prepare(config), folder_of(settings)).parts.model
    losses = [line["loss"] for line in log_lines(folder_of(settings)) if "lr" in line]
    assert losses[-1] < 0.85 * losses[0]
    assert results["eval_qa_loss"] < results["before_eval_qa_loss"]
    for name, parameter in after.named_parameters():
        if parameter.requires_grad:
            assert not torch.equal(parameter, before[name]), name


def test_a_tokenizer_s_own_chat_template_runs_to_the_end(settings, tmp_path):
    folder = tmp_path / "chat"
    AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"]).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(settings["model_name_or_path"])
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    results = train(config_of({**settings, "model_name_or_path": str(folder), "template": "tokenizer"}))
    assert evaluate_folder(folder_of(settings)) == evaluation(results)


@pytest.mark.parametrize("template", ["default", "alpaca", "chatml"])
def test_an_answer_learnt_by_heart_is_generated_and_ends_where_it_should(settings, tmp_path, template):
    rows = [{"instruction": "愤怒?", "output": "是"}, {"instruction": "Calm?", "output": "no"}]
    file = write_jsonl(tmp_path / "heart.jsonl", rows)
    tasks = {"心情": {"file": file, "eval_file": file}}
    changes = {"tasks": tasks, "template": template, "max_steps": 60, "cutoff_len": 300, "finetuning_type": "full"}
    results = train(config_of({**settings, **changes, "learning_rate": 0.01, "max_new_tokens": 40}))
    assert results["eval_心情_exact_match"] == 1.0
    assert results["conflict_rate"] is None


def test_one_mixed_file_gives_the_run_of_separate_files(settings, tmp_path):
    mixed, parts = [], {}
    for task in TASKS:
        rows = rows_of(task, 5)
        mixed += [{**row, "task_name": task} for row in rows]
        parts[task] = {"file": write_jsonl(tmp_path / f"{task}.jsonl", rows)}
    separate = train(config_of({**settings, "tasks": parts, "val_size": 2}))
    settings["train_file"] = write_jsonl(tmp_path / "mixed.jsonl", mixed)
    del settings["tasks"]
    together = train(config_of({**settings, "val_size": 2, "output_dir": str(tmp_path / "mixed")}))
    assert evaluation(separate) == evaluation(together)
    assert len(evaluation(together)) == 6
    assert adapter(tmp_path / "mixed") == adapter(folder_of(settings))


def test_without_held_out_rows_nothing_is_measured(settings):
    settings["tasks"] = {task: {"file": files["file"]} for task, files in settings["tasks"].items()}
    results = train(config_of({**settings, "val_size": 0}))
    assert evaluation(results) == evaluate_folder(folder_of(settings)) == {}


def test_evaluating_on_the_way_does_not_change_what_is_learnt(settings, tmp_path):
    changes = {"lora_dropout": 0.3, "combiner": "pcgrad"}
    train(config_of({**settings, **changes}))
    often = {"eval_steps": 1, "save_steps": 1, "save_total_limit": 1, "logging_steps": 3}
    train(config_of({**settings, **changes, **often, "output_dir": str(tmp_path / "often")}))
    assert adapter(folder_of(settings)) == adapter(tmp_path / "often")
    assert [path.name for path in (tmp_path / "often").glob("checkpoint-*")] == ["checkpoint-4"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(settings, tmp_path):
    adapters = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(config_of({**settings, "seed": seed, "lora_dropout": 0.2, "output_dir": str(tmp_path / name)}))
        adapters.append(adapter(tmp_path / name))
    assert adapters[0] == adapters[1] != adapters[2]


def test_log_lines_average_over_their_steps(settings, tmp_path):
    train(config_of(settings))
    every = [line for line in log_lines(folder_of(settings)) if "lr" in line]
    train(config_of({**settings, "logging_steps": 3, "output_dir": str(tmp_path / "third")}))
    some = [line for line in log_lines(tmp_path / "third") if "lr" in line]
    assert [line["current_steps"] for line in some] == [3, 4]
    assert some[0]["loss_qa"] == pytest.approx(sum(line["loss_qa"] for line in every[:3]) / 3)
    assert some[1]["loss_qa"] == pytest.approx(every[3]["loss_qa"])
