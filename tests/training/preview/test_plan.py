"""What a plan says is what a run takes: weights to the byte, the peak within a factor, steps and tokens exactly."""

import json
import logging
from pathlib import Path

import pytest
import torch
from tiny_run import TASKS, build_data, config_of, mostly_slow, rows_of, write_config
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.timer import peak_bytes
from mtl_opt import cli
from mtl_opt.examples.tiny_llama import train_tokenizer
from mtl_opt.training import train
from mtl_opt.training.preview.plan import human, plan_run
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.step import training_step
from mtl_opt.training.setup.data import prepare

FACTOR = 1.35
"""The measured peak is within this factor of the plan, either way."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose activations are more than its overhead."""
    folder = tmp_path_factory.mktemp("wide")
    texts = [value for task in TASKS for row in rows_of(task, 8) for value in row.values()]
    sizes = {"vocab_size": 1000, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).save_pretrained(folder)
    train_tokenizer(texts, vocab_size=300).save_pretrained(folder)
    return {"model_name_or_path": str(folder), "tasks": build_data(folder / "data")}


PEAKS = [
    {"combiner": "pcgrad"},
    {"bf16": True},
    {"lora_dropout": 0.1},
    {"gradient_checkpointing": True},
    {"quantization_bit": 4, "optim": "adamw_bnb_8bit", "lora_rank": 64},
    {"quantization_bit": 8},
    {"finetuning_type": "full"},
    {"gradient_engine": "per_task", "finetuning_type": "full"},
    {"gradient_engine": "two_pass", "finetuning_type": "full", "combiner": "pcgrad"},
]


@pytest.mark.parametrize(
    "changes", mostly_slow(PEAKS, [PEAKS[0], PEAKS[-1]]), ids=lambda changes: "-".join(map(str, changes.values()))
)
def test_the_peak_of_a_real_run_is_near_the_plan(wide, settings, changes):
    config = config_of(
        {**settings, **wide, "rows_per_task": 6, "cutoff_len": 128, "verify_gradients": False, **changes}
    )
    planned, prepared = plan_run(config), prepare(config)

    def build():
        run = build_run(config, prepared)
        run.parts.model.train()
        steps = iter(range(1, 9))
        return lambda: training_step(run.parts, run.next_batches(), next(steps))

    measured = peak_bytes(build, torch.device("cpu"))
    assert planned.memory.total / FACTOR < measured < planned.memory.total * FACTOR, human(measured)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bf16": True},
        {"quantization_bit": 4},
        {"quantization_bit": 4, "double_quantization": False, "use_dora": True},
        {"quantization_bit": 8},
        {"finetuning_type": "full"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_weights_are_planned_to_the_byte_without_loading_them(wide, settings, changes, monkeypatch):
    config = config_of({**settings, **wide, **changes})
    run = build_run(config, prepare(config))
    held = {id(t): t for t in (*run.parts.model.parameters(), *run.parts.model.buffers())}
    for module in run.parts.model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        for one in (state, getattr(state, "state2", None)):
            held |= {} if one is None else {id(one.absmax): one.absmax, id(one.code): one.code}
        for holder in (getattr(module, "weight", None), getattr(module, "state", None)):  # there once it has run
            scales = getattr(holder, "SCB", None)
            held |= {} if scales is None else {id(scales): scales}
    measured = sum(tensor.numel() * tensor.element_size() for tensor in held.values())
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)  # a plan reads no weights
    planned = plan_run(config)
    # The tables of 16 and 256 numbers may be one tensor for all layers.
    tables = 28 * (64 + 1024) if changes.get("quantization_bit") == 4 else 0
    assert measured <= planned.memory.weights <= measured + tables
    assert planned.shared == run.parts.grads.buffer.rows.shape[1]
    assert planned.parameters == sum(p.numel() for p in run.parts.model.parameters()) or "quantization_bit" in changes


def test_steps_rows_and_tokens_are_those_of_the_run(wide, settings):
    changes = {"max_steps": -1, "num_train_epochs": 2.0, "gradient_accumulation_steps": 2}
    config = config_of({**settings, **wide, **changes})
    planned, run = plan_run(config), build_run(config, prepare(config))
    assert planned.steps == run.total_steps
    batches = run.next_batches()
    assert planned.rows_per_step == sum(len(batch.task_ids) for batch in batches)
    widths = [batch.input_ids.numel() for _ in range(31) for batch in run.next_batches()]
    widths += [batch.input_ids.numel() for batch in batches]
    assert planned.tokens.largest == max(widths)
    assert planned.tokens.per_step == pytest.approx(sum(widths) / 32)


def test_packing_and_a_smaller_buffer_show_in_the_plan(wide, settings):
    settings |= {**wide, "cutoff_len": 128}
    plain, packed = (plan_run(config_of({**settings, "packing": flag})) for flag in (False, True))
    assert packed.tokens.per_step < plain.tokens.per_step
    assert packed.tokens.real_per_step == plain.tokens.real_per_step
    assert packed.memory.activations <= plain.memory.activations
    small = plan_run(config_of({**settings, "gradient_buffer_dtype": "bfloat16", "gradient_buffer_device": "cpu"}))
    assert 2 * small.memory.gradient_rows == plain.memory.gradient_rows
    without = plan_run(config_of({**settings, "gradient_window": 0}))  # with lora a window is kept by default
    assert plain.memory.gradient_rows == 2 * without.memory.gradient_rows
    one = plan_run(config_of({**settings, "only_tasks": ["qa"]}))
    assert 3 * one.memory.gradient_rows == plain.memory.gradient_rows


@pytest.mark.parametrize(
    ("changes", "engine", "reason"),
    [
        ({}, "one_pass", "every shared parameter is in a layer that can be wired"),
        ({"use_dora": True}, "per_task", "DoRA"),
        ({"torch_compile": True}, "per_task", "the model is compiled"),
        ({"gradient_engine": "two_pass"}, "two_pass", ""),
    ],
)
def test_the_engine_is_the_one_of_the_run(wide, settings, changes, engine, reason):
    planned = plan_run(config_of({**settings, **wide, **changes}))
    assert planned.engine == engine
    assert reason in planned.engine_reason


def test_a_run_logs_its_plan_once_with_the_same_figures(wide, settings, caplog):
    caplog.set_level(logging.INFO)
    config = config_of({**settings, **wide, "quantization_bit": 4})
    train(config)
    lines = [record.getMessage() for record in caplog.records if "memory, estimated" in record.getMessage()]
    assert lines == [f"{plan_run(config).sentence()}."]
    assert f"total {human(0)}" not in lines[0]


def test_the_command_prints_a_table_or_json_and_writes_nothing(wide, settings, tmp_path, capsys):
    path = write_config(tmp_path / "config.yaml", {**settings, **wide})
    assert cli.main(["plan", path, "quantization_bit=4"]) == 0
    table = capsys.readouterr().out
    assert cli.main(["plan", path, "quantization_bit=4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    memory = found["memory"]
    assert memory["total"] == sum(size for name, size in memory.items() if name != "total")
    assert f"total per process         {human(memory['total'])}" in table
    assert "one_pass: every shared parameter" in table
    assert found["file_bytes"] == (Path(wide["model_name_or_path"]) / "model.safetensors").stat().st_size
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there_is_refused_in_one_sentence(settings, refused):
    sentence = refused({**settings, "model_name_or_path": "/nowhere"}, verb="plan")
    assert "/nowhere" in sentence


@pytest.mark.parametrize("accumulation", [1, 4])
def test_rows_that_are_drawn_once_are_planned_and_trained_to_their_end(settings, tmp_path, accumulation):
    changes = {"exhaustion": "once", "max_steps": -1, "num_train_epochs": 1, "max_new_tokens": 1}
    config = config_of(settings, **changes, gradient_accumulation_steps=accumulation)  # 23 rows, 6 in a micro-batch
    planned = plan_run(config)
    train(config)
    assert planned.steps == 4 // accumulation
    assert planned.tokens.real_per_step > 0
    lines = (tmp_path / "run" / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum("loss" in json.loads(line) for line in lines) == planned.steps
