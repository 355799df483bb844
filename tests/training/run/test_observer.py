"""What combiners that observe are shown: FAMO the same batch under the same masks, CoBa held-out rows in turn."""

import pytest
import torch
from tiny_run import TASKS, config_of

from mtl_opt.batch import task_rows
from mtl_opt.combiners import FAMO, CoBa
from mtl_opt.data import collate
from mtl_opt.errors import InputError
from mtl_opt.models import task_losses
from mtl_opt.training import train, training_step
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.run.observer import Observer
from mtl_opt.training.setup.data import prepare

COBA = {"combiner": "coba", "combiner_args": {"warmup": 2, "window": 4}}


@pytest.fixture
def settings(settings):
    """Watch the run's own combiner alone: its shadow is shown the same losses."""
    return {**settings, "shadow_combiners": "none"}


@pytest.fixture
def heard(monkeypatch):
    """Collect what is observed, and let it through."""
    seen = []
    for cls in (FAMO, CoBa):
        original = cls.observe

        def listen(self, losses, *, tasks=None, original=original):
            seen.append((losses.clone(), list(tasks)))
            original(self, losses, tasks=tasks)

        monkeypatch.setattr(cls, "observe", listen)
    return seen


def observed_step(run, batches):
    """Take one step and observe it, as the loop does; give the event and the random state before it."""
    observer = Observer(run)
    run.parts.model.train()
    state = torch.get_rng_state()
    observer.before_step()
    event = training_step(run.parts, batches, 1)
    after_step = torch.get_rng_state()
    observer.after_step(batches, 1)
    assert torch.equal(torch.get_rng_state(), after_step)  # observing draws nothing from the run
    return event, state


def forward_again(run, batches, state):
    """Average the losses of some micro-batches by hand, with the masks that `state` draws."""
    sums, totals = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with torch.random.fork_rng(), torch.no_grad():
        torch.set_rng_state(state)
        for batch in batches:
            with task_rows(batch.task_ids):
                losses, counts = task_losses(run.parts.model, batch, 3)
            sums += losses * counts
            totals += counts
    return sums / totals


def build(settings, **changes):
    config = config_of({**settings, **changes})
    return build_run(config, prepare(config))


@pytest.mark.parametrize("pieces", [1, 3])
def test_famo_sees_the_losses_of_the_same_batch_after_the_step(settings, heard, pieces):
    run = build(settings, combiner="famo", lora_dropout=0.5, gradient_accumulation_steps=pieces)
    batches = run.next_batches()
    event, state = observed_step(run, batches)
    ((losses, tasks),) = heard
    assert tasks == [0, 1, 2]
    torch.testing.assert_close(losses, forward_again(run, batches, state), rtol=1e-6, atol=0)
    assert (losses - event.losses).abs().min() > 1e-4  # the parameters have moved


def test_famo_sees_the_dropout_masks_of_the_step(settings, heard):
    run = build(settings, combiner="famo", lora_dropout=0.5, learning_rate=1e-30)
    with torch.no_grad():  # LoRA begins with B = 0, where dropout changes nothing
        for parameter in run.parts.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    batches = run.next_batches()
    event, _ = observed_step(run, batches)
    torch.testing.assert_close(heard[0][0], event.losses.double(), rtol=1e-6, atol=0)  # a step of length 0
    other = forward_again(run, batches, torch.get_rng_state())
    assert (other - event.losses).abs().max() > 1e-3  # other masks, other losses


def test_a_task_without_rows_is_not_observed(settings, heard):
    run = build(settings, combiner="famo")
    rows = [run.prepared.train[TASKS[0]][:2], [], run.prepared.train[TASKS[2]][:1]]
    observed_step(run, [collate(rows, run.prepared.tokenizer.pad_token_id)])
    ((losses, tasks),) = heard
    assert tasks == [0, 2]
    assert losses.shape == (2,)


def test_coba_sees_held_out_rows_in_turn_without_dropout(settings, heard):
    run = build(settings, **COBA, lora_dropout=0.5, observe_every=2)
    observer, model = Observer(run), run.parts.model
    model.train()
    for step in range(1, 7):
        observer.before_step()
        observer.after_step([], step)
    assert model.training
    assert len(heard) == 3  # after steps 2, 4, 6
    model.eval()
    for turn, (losses, tasks) in enumerate(heard):
        held = [run.prepared.eval_encoded[task] for task in TASKS]
        rows = [[own[(2 * turn + i) % len(own)] for i in range(2)] for own in held]
        with torch.no_grad():
            wanted, _ = task_losses(model, collate(rows, run.prepared.tokenizer.pad_token_id), 3)
        assert tasks == [0, 1, 2]
        torch.testing.assert_close(losses, wanted.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_observes_held_out_losses_every_so_many_steps(settings, heard, every):
    train(config_of({**settings, **COBA, "observe_every": every, "max_steps": 6}))
    assert len(heard) == 6 // every


def test_a_resumed_run_observes_what_it_would_have_observed(settings, heard, tmp_path):
    for changes in ({"combiner": "famo"}, COBA):
        heard.clear()
        own = {**settings, **changes, "lora_dropout": 0.3, "max_steps": 4, "save_steps": 2}
        whole = tmp_path / changes["combiner"]
        train(config_of({**own, "output_dir": str(whole)}))
        before = list(heard)
        assert len(before) == 4
        heard.clear()
        later = {"output_dir": str(whole) + "-later", "resume_from_checkpoint": str(whole / "checkpoint-2")}
        train(config_of({**own, **later}))
        assert len(heard) == 2
        for (losses, tasks), (wanted, present) in zip(heard, before[2:], strict=True):
            assert torch.equal(losses, wanted)
            assert tasks == present


def test_other_combiners_observe_nothing(settings, heard):
    run = build(settings, combiner="pcgrad")
    observed_step(run, run.next_batches())
    assert heard == []


def test_held_out_rows_that_are_missing_are_named(settings):
    settings["tasks"] = {task: {"file": files["file"]} for task, files in settings["tasks"].items()}
    with pytest.raises(InputError, match="`combiner: coba` observes held-out rows; task `qa` has none"):
        train(config_of({**settings, **COBA, "val_size": 0}))
