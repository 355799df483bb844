"""What would silently mix tasks is refused with a sentence."""

import pytest
import torch

from mtl_opt import Sum
from mtl_opt.gradients import TaskGradients, backward

TASKS = ("qa", "summary", "投诉")
ENGINES = ("one_pass", "per_task")


def test_losses_that_are_no_losses_are_refused(small):
    model, _, losses = small
    grads = TaskGradients(model, TASKS, "per_task")
    with pytest.raises(
        ValueError, match=r"`losses` must be \[3\], .*qa, summary, 投诉.*got shape \(\): a loss already"
    ):
        grads.backward(losses().sum())
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        grads.backward(losses()[:2])
    with pytest.raises(ValueError, match="`losses` depend on no trainable parameter"):
        grads.backward(torch.ones(3))


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_that_were_already_summed_are_refused(engine, small):
    model, ids, losses = small
    grads = TaskGradients(model, TASKS, engine)
    losses().sum().backward()
    with grads.rows(ids), pytest.raises(ValueError, match=r"`0.weight` already has a gradient: one summed over tasks"):
        grads.backward(losses())


def test_a_backward_outside_rows_is_refused_by_one_pass(small):
    model, _, losses = small
    grads = TaskGradients(model, TASKS, "one_pass")
    with pytest.raises(ValueError, match=r"Call `backward` inside `with grads.rows\(ids\):`"):
        grads.backward(losses())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.tensor([2.0]), r"`counts` must be \[3\], one per task .*, got shape \(1,\)"),
        (torch.tensor(2.0), r"`counts` must be \[3\], one per task .*, got shape \(\)"),
        (torch.tensor([1.0, torch.nan, 1.0]), "finite and at least 0, got nan for task `summary`"),
        (torch.tensor([1.0, 1.0, -1.0]), "finite and at least 0, got -1.0 for task `投诉`"),
    ],
)
def test_counts_that_count_nothing_are_refused(counts, message, small):
    model, _, losses = small
    grads = TaskGradients(model, TASKS, "per_task")
    with pytest.raises(ValueError, match=message):
        grads.backward(losses(), counts)


@pytest.mark.parametrize("engine", ["one_pass", "two_pass", "per_task"])
def test_a_loss_that_nothing_can_change_is_found_in_the_first_step(engine, small):
    model, ids, losses = small
    grads = TaskGradients(model, TASKS, engine, verify=True)
    with grads.rows(ids):
        values = losses()
        constant = torch.stack([values[0], values[1].detach(), values[2]])
        with pytest.raises(ValueError, match="loss of task `summary` depends on no trainable parameter"):
            grads.backward(constant)


def test_the_one_line_form_names_a_constant_loss(small):
    model, _, losses = small
    with pytest.raises(ValueError, match=r"`losses\[1\]` \(task `1`\) depends on no trainable parameter; give None"):
        backward([losses()[0], torch.tensor(1.0)], model, Sum())
