"""A curriculum of rows in a run: by length, a column or the loss before training; a resume draws the very same rows."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_run import TASKS, config_of, mostly_slow, rows_of, write_jsonl

from mtl_opt.batch import task_rows
from mtl_opt.data import PacedRows, collate
from mtl_opt.models import task_losses
from mtl_opt.training import train
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.row_losses import measure_rows
from mtl_opt.training.setup.data import prepare
from mtl_opt.training.setup.model_settings import evaluation_settings
from mtl_opt.training.setup.sampler import build_sampler

CLS = {"heads": {"anger": {"type": "classification", "labels": ["yes", "no"]}}}
TIMES = {"train_runtime", "evaluation_runtime", "overhead_seconds", "steps_per_second", "time", "peak_memory_mb"}


def with_column(settings, tmp_path, name="难度"):
    """Write the rows with a number that says how hard each is: the last row is the easiest."""
    tasks = {}
    for task in TASKS:
        rows = [{**row, name: -i} for i, row in enumerate(rows_of(task, 10))]
        tasks[task] = {**settings["tasks"][task], "file": write_jsonl(tmp_path / f"{task}.jsonl", rows)}
    return {**settings, "tasks": tasks}


@pytest.mark.parametrize("changes", [{}, {"sharing": "private_layers"}, CLS], ids=["hard", "private", "heads"])
def test_the_loss_of_a_row_is_that_of_the_row_alone(settings, changes):
    config = config_of({**settings, **changes, "per_device_eval_batch_size": 5})
    prepared = prepare(config)
    run = build_run(config, prepared)
    run.loader.close()
    model = run.parts.model
    found = measure_rows(model, prepared, evaluation_settings(config))
    model.eval()
    for own, task in enumerate(TASKS):
        for i, row in enumerate(prepared.train[task]):
            batch = collate([[row] if own == t else [] for t in range(3)], prepared.tokenizer.pad_token_id)
            with torch.no_grad(), task_rows(batch.task_ids):
                wanted = task_losses(model, batch, 3)[0][own]
            assert float(found[task][i]) == pytest.approx(float(wanted), rel=1e-4)


def test_rows_come_in_the_order_of_their_column(settings, tmp_path):
    given = with_column(settings, tmp_path)
    pacing = {"rows": "column:难度", "pacing": {"start": 0.1, "steps": 1.0}}
    config = config_of({**given, "mixing_args": pacing, "max_steps": 10, "rows_per_task": 1})
    prepared = prepare(config)
    sampler, _ = build_sampler(config, prepared)
    drawn = [sampler.draw() for _ in range(10)]
    for task in TASKS:
        assert [prepared.train_rows[task][draw[task][0]].difficulty for draw in drawn] == list(range(-9, 1))
    backwards = config_of(config.__dict__ | {"mixing_args": {**pacing, "order": "hard_first"}})
    sampler, _ = build_sampler(backwards, prepare(backwards))
    assert [sampler.draw()["qa"] for _ in range(10)] == [[i] for i in range(10)]


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            {"mixing_args": {"rows": "loss", "pacing": {"steps": 1.0}}},
            {"mixing_args": {"rows": "length", "order": "hard_first"}, "dataloader_num_workers": 2},
            {"mixing": "bandit", "mixing_args": {"rows": "column:难度"}, "gradient_accumulation_steps": 2},
            {"mixing": "curriculum", "mixing_args": {"rows": "loss", "order": "length", "pacing": "root"}},
        ],
        fast=[{"mixing_args": {"rows": "loss", "pacing": {"steps": 1.0}}}],
    ),
    ids=lambda changes: f"{changes.get('mixing', 'balanced')}-{changes['mixing_args']['rows']}",
)
def test_a_resume_draws_the_same_rows(settings, tmp_path, changes):
    given = {**with_column(settings, tmp_path), **changes, "save_steps": 1, "max_steps": 6}
    whole = train(config_of(given))
    folder = Path(given["output_dir"])
    wanted = (folder / "adapter_model.safetensors").read_bytes()
    plain = train(config_of({**given, "mixing_args": {}, "output_dir": str(tmp_path / "plain")}))
    assert plain["train_loss"] != whole["train_loss"], "a curriculum draws other rows"
    for step in (4, 2):
        for path in folder.iterdir():
            if path.name.startswith("checkpoint-") and int(path.name.split("-")[1]) > step:
                shutil.rmtree(path)
            elif path.name.startswith("adapter") or path.name == "all_results.json":
                path.unlink()
        again = train(config_of({**given, "resume_from_checkpoint": True}))
        assert {k: v for k, v in again.items() if k not in TIMES} == {k: v for k, v in whole.items() if k not in TIMES}
        assert (folder / "adapter_model.safetensors").read_bytes() == wanted


def test_a_run_that_is_stopped_early_keeps_to_the_steps_it_was_planned_for(settings):
    changes = {"exhaustion": "stop_all", "max_steps": -1, "num_train_epochs": 2, "mixing_args": {"rows": "length"}}
    config = config_of({**settings, **changes})
    sampler, total = build_sampler(config, prepare(config))
    assert all(isinstance(order, PacedRows) and order.total_steps == total for order in sampler.orders.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mixing_args": {"rows": "size"}}, "`mixing_args.rows` must be length, loss or column:NAME, got 'size'"),
        (
            {"mixing_args": {"rows": "column:level"}},
            "line 1: `level` must be a number (`mixing_args.rows: column:level`)",
        ),
        ({"mixing_args": {"pacing": {"start": 0.1}}}, "`balanced` has no argument `pacing`"),
        ({"mixing_args": {"rows": "length", "pacing": "linear"}}, "`balanced` has no argument `pacing`"),
        ({"mixing_args": {"rows": "length"}, "group_by_length": True}, "excludes `group_by_length: true`"),
        ({"mixing_args": {"rows": "length"}, "streaming": True, "val_size": 0}, "excludes `streaming: true`"),
        ({"mixing_args": {"rows": "length"}, "exhaustion": "once"}, "does not go with `exhaustion: once`"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "plan"])
def test_what_a_curriculum_of_rows_cannot_be_had_with_is_refused(settings, refused, tmp_path, changes, words, verb):
    assert words in refused({**settings, **changes}, verb=verb)
    assert not (tmp_path / "run").exists()


def test_the_losses_are_measured_once_and_said(settings, caplog):
    caplog.set_level("INFO")
    train(config_of({**settings, "max_steps": 2, "mixing_args": {"rows": "loss"}}))
    assert caplog.text.count("The loss of 23 rows was measured once, to sort them (`rows: loss`)") == 1
    assert (
        json.loads((Path(settings["output_dir"]) / "all_results.json").read_text(encoding="utf-8"))["train_steps"] == 2
    )
