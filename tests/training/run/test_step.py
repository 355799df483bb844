"""One step: the order of its parts, and that cutting it into micro-batches changes nothing."""

from dataclasses import replace

import pytest
import torch
from tiny_run import config_of

from mtl_opt.data import collate
from mtl_opt.errors import InputError
from mtl_opt.training import training_step
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.setup.data import prepare


def sgd_run(settings, **changes):
    """Build a run whose optimizer moves the parameters by minus the gradient."""
    config = config_of({**settings, **changes})
    run = build_run(config, prepare(config))
    trained = [p for p in run.parts.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    with torch.no_grad():  # LoRA begins with B = 0, where half of the gradients vanish
        generator = torch.Generator().manual_seed(0)
        for parameter in trained:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return replace(run, parts=replace(run.parts, optimizer=optimizer, scheduler=scheduler))


def trained_of(run):
    return torch.cat([p.detach().flatten() for p in run.parts.model.parameters() if p.requires_grad])


@pytest.mark.parametrize("combiner", ["sum", "pcgrad", "gradnorm"])
def test_two_micro_batches_give_the_step_of_one_with_the_same_rows(settings, combiner):
    moved, events = [], []
    for pieces in (1, 2, 4):
        run = sgd_run(settings, combiner=combiner, rows_per_task=4, max_grad_norm=0)
        rows = [run.prepared.train[task] for task in run.prepared.tasks]
        rows = [(list(own) * 4)[:4] for own in rows]
        rows[0] = rows[0][:3]  # tasks of different sizes, and a micro-batch without one of them
        size = 4 // pieces
        chunks = [[own[i : i + size] for own in rows] for i in range(0, 4, size)]
        batches = [collate(chunk, run.prepared.tokenizer.pad_token_id) for chunk in chunks]
        before = trained_of(run)
        events.append(training_step(run.parts, batches, 1))
        moved.append(trained_of(run) - before)
    for delta, event in zip(moved[1:], events[1:], strict=True):
        torch.testing.assert_close(delta, moved[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(event.losses, events[0].losses, rtol=1e-6, atol=0)
        torch.testing.assert_close(event.gramian, events[0].gramian, rtol=1e-5, atol=1e-6)
        assert torch.equal(event.counts, events[0].counts)


def test_the_combined_gradient_is_clipped_and_not_the_tasks_own(settings):
    run = sgd_run(settings, combiner="pcgrad", max_grad_norm=0.25)
    free = sgd_run(settings, combiner="pcgrad", max_grad_norm=0)
    batches = run.next_batches()
    steps = []
    for one in (run, free):
        before = trained_of(one)
        event = training_step(one.parts, batches, 1)
        steps.append((trained_of(one) - before, event))
    (clipped, event), (whole, unclipped) = steps
    assert torch.equal(event.gramian, unclipped.gramian)
    assert event.grad_norm == unclipped.grad_norm == pytest.approx(float(whole.norm()), rel=1e-5)
    assert event.grad_norm > 0.25
    torch.testing.assert_close(clipped, whole * 0.25 / whole.norm(), rtol=1e-4, atol=1e-6)
    combined = (event.weights @ event.gramian @ event.weights).sqrt()
    assert event.grad_norm == pytest.approx(float(combined), rel=1e-4)


def test_an_event_lives_on_and_holds_task_sized_tensors_alone(settings):
    run = sgd_run(settings)
    event = training_step(run.parts, run.next_batches(), 1)
    gramian, losses = event.gramian.clone(), event.losses.clone()
    training_step(run.parts, run.next_batches(), 2)
    assert torch.equal(event.gramian, gramian)
    assert torch.equal(event.losses, losses)
    assert event.gramian.shape == (3, 3)
    assert not event.losses.requires_grad
    assert all(p.grad is None for p in run.parts.model.parameters())


def test_a_step_that_is_not_finite_is_not_taken_and_names_its_task(settings):
    run = sgd_run(settings)
    batch = collate([[], [], run.prepared.train["anger"]], run.prepared.tokenizer.pad_token_id)
    with torch.no_grad():
        run.parts.model.get_input_embeddings().weight[0] = torch.nan
    before = trained_of(run)
    with pytest.raises(InputError, match=r"loss of task `anger` is not finite \(nan\) at step 7"):
        training_step(run.parts, [batch], 7)
    assert torch.equal(trained_of(run), before)
