"""From draws to batches: threads, tokens per batch, streams; the rows and their order never depend on them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import TASKS, config_of, digest, rows_of, write_jsonl

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data import MIXINGS
from mtl_opt.data.text.tokens import EncodedRow
from mtl_opt.training import train
from mtl_opt.training.setup.data import prepare
from mtl_opt.training.setup.loader import build_loader, split_by_tokens
from mtl_opt.training.setup.sampler import build_sampler

SCHEDULE = {"points": [[0, {"qa": 0.5, "摘要": 0.5, "anger": 0}], [1, {"qa": 0.2, "摘要": 0.2, "anger": 0.6}]]}
RATIOS = {"qa": 0.5, "摘要": 0.25, "anger": 0.25}


def loader_of(config):
    prepared = prepare(config)
    return build_loader(config, prepared, build_sampler(config, prepared)[0])


def tokens_of(batches):
    return [(batch.input_ids.tolist(), batch.task_ids.tolist()) for batch in batches]


@pytest.mark.parametrize(
    "changes", [{}, {"mixing": "sqrt", "gradient_accumulation_steps": 2}, {"mixing": "bandit"}], ids=str
)
def test_threads_change_nothing_about_the_batches_or_where_a_resumed_run_goes_on(settings, changes):
    plain = loader_of(config_of(settings, **changes))
    ahead = loader_of(config_of(settings, **changes, dataloader_num_workers=2, dataloader_prefetch_factor=3))
    resumed = loader_of(config_of(settings, **changes, dataloader_num_workers=1))
    for step in range(4):
        assert tokens_of(plain.next()) == tokens_of(ahead.next())
        for loader in (plain, ahead):
            loader.observe({"qa": 2.0 + step, "摘要": 3.0, "anger": 1.0}, step)
        assert plain.state_dict() == ahead.state_dict()
        assert plain.epochs() == ahead.epochs()
    resumed.next()
    resumed.load_state_dict(ahead.state_dict())
    for _ in range(3):
        assert tokens_of(plain.next()) == tokens_of(resumed.next()) == tokens_of(ahead.next())
    for loader in (ahead, resumed):
        loader.close()


def test_the_batch_size_of_hugging_face_is_divided_over_the_tasks(settings):
    (batch,) = loader_of(config_of(settings, per_device_train_batch_size=6)).next()
    assert torch.bincount(batch.task_ids).tolist() == [2, 2, 2]
    (batch,) = loader_of(config_of(settings, per_device_train_batch_size=2)).next()
    assert torch.bincount(batch.task_ids).tolist() == [1, 1, 1]


def row(length, answers=1):
    return EncodedRow(list(range(length)), [IGNORE_INDEX] * (length - answers) + [0] * answers, shortened=False)


def test_a_limit_of_tokens_divides_a_batch_and_loses_no_row():
    rows = [[row(n) for n in (9, 3, 7)], [], [row(n) for n in (2, 10, 4)]]
    parts = split_by_tokens(rows, 20)
    for part in parts:
        flat = [one for mine in part for one in mine]
        assert max(len(one.input_ids) for one in flat) * len(flat) <= 20
    for task in range(3):
        found = sorted(len(one.input_ids) for part in parts for one in part[task])
        assert found == sorted(len(one.input_ids) for one in rows[task])
    assert split_by_tokens(rows, None) == split_by_tokens(rows, 60) == [rows]


def test_tokens_per_batch_changes_memory_and_not_what_is_learnt(settings, tmp_path):
    adapters = []
    for name, changes in (("whole", {}), ("parts", {"tokens_per_batch": 48})):
        folder = tmp_path / name
        train(config_of(settings, output_dir=str(folder), max_steps=2, lora_dropout=0, **changes))
        adapters.append(load_file(folder / "adapter_model.safetensors"))
    for key, tensor in adapters[0].items():
        torch.testing.assert_close(tensor, adapters[1][key], rtol=1e-4, atol=1e-6)


def test_rows_grouped_by_length_need_less_padding(settings, tmp_path):
    rows = [{"instruction": "a " * (1 + 37 * i % 40), "output": "b"} for i in range(200)]
    settings["tasks"] = {"a": {"file": write_jsonl(tmp_path / "a.jsonl", rows)}}

    def padding(**changes):
        loader = loader_of(config_of(settings, rows_per_task=4, cutoff_len=200, **changes))
        return sum(int((batch.attention_mask == 0).sum()) for _ in range(40) for batch in loader.next())

    assert padding(group_by_length=True) < 0.3 * padding()


def goes_on_the_same(whole, tmp_path):
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    train(replace(whole, output_dir=str(tmp_path / "again"), resume_from_checkpoint=str(checkpoint)))
    first, second = (digest(tmp_path / name)["adapter_model.safetensors"][0] for name in ("whole", "again"))
    assert first == second


QUICK = ("homogeneous", "curriculum", "bandit")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in MIXINGS if name not in (*QUICK, "balanced")]


@pytest.mark.parametrize("mixing", [*QUICK, *SLOW])
def test_a_run_under_every_mixing_goes_on_after_a_kill_bit_by_bit(settings, tmp_path, mixing):
    arguments = SCHEDULE if mixing == "ratio_schedule" else {}
    changes = {"mixing": mixing, "mixing_args": arguments, "ratios": RATIOS if mixing == "ratios" else None}
    whole = config_of(settings, **changes, save_steps=2, output_dir=str(tmp_path / "whole"), dataloader_num_workers=1)
    train(whole)
    goes_on_the_same(whole, tmp_path)


@pytest.mark.slow
def test_a_stream_is_trained_on_and_goes_on_with_the_very_next_row(settings, tmp_path):
    changes = {"streaming": True, "val_size": 2, "buffer_size": 4}
    settings["tasks"] = {task: {"file": write_jsonl(tmp_path / f"{task}.jsonl", rows_of(task, 9))} for task in TASKS}
    whole = config_of(settings, **changes, save_steps=2, output_dir=str(tmp_path / "whole"))
    results = train(whole)
    assert results["train_steps"] == 4
    goes_on_the_same(whole, tmp_path)
