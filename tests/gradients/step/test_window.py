"""Statistics of a window: what gradients have in common, without the noise of single batches."""

import copy

import pytest
import torch
from torch import nn

from mtl_opt.gradients import TaskGradients
from mtl_opt.gradients.step.window import Window

TASKS = ("a", "b")


def draw(signal, noise):
    return signal + noise * torch.randn_like(signal)


def run(window, steps, signal, noise, present=(0, 1)):
    rows = []
    for _ in range(steps):
        row = draw(signal, noise)
        rows.append(row)
        if window.add(row, row.square().sum(1), list(present)):
            window.finish_block(window.sums @ window.sums.T)
    return torch.stack(rows)


def test_a_block_is_the_formula_on_its_own_rows():
    window = Window(2, 20, torch.zeros(2, 6, dtype=torch.float64))
    rows = run(window, 4, torch.randn(2, 6, dtype=torch.float64), 1.0)
    estimate = window.estimate()
    assert estimate.blocks.shape == (2, 2, 2)
    for block, (first, second) in zip(estimate.blocks, rows.split(2), strict=True):
        assert block[0, 0] == pytest.approx(float(first[0] @ second[0]))  # products of different steps only
        assert block[1, 1] == pytest.approx(float(first[1] @ second[1]))
        total = first + second
        assert block[0, 1] == pytest.approx(float(total[0] @ total[1]) / 4)
    torch.testing.assert_close(estimate.power, rows.view(2, 2, 2, 6).square().sum(-1).mean(1))


def test_estimates_are_unbiased_where_single_steps_are_not():
    signal = torch.tensor([[1.0, 0, 0, 0], [0.6, 0.8, 0, 0]], dtype=torch.float64).repeat(1, 10) / 10**0.5
    window = Window(2, 2000, torch.zeros_like(signal))
    rows = run(window, 2000, signal, 0.5)
    estimate = window.estimate()
    wanted = signal @ signal.T
    assert float((estimate.gramian - wanted).abs().max()) < 0.05
    plain = torch.einsum("sip,sjp->ij", rows, rows) / len(rows)
    assert float((plain - wanted).diagonal().min()) > 8  # 40 · 0.25 of noise
    assert float((estimate.signal_to_noise - 0.1).abs().max()) < 0.02


def test_the_window_slides_by_blocks():
    window = Window(2, 20, torch.zeros(2, 3))
    run(window, 60, torch.ones(2, 3), 0.0)
    assert window.estimate().blocks.shape == (10, 2, 2)
    run(window, 20, torch.zeros(2, 3), 0.0)
    assert window.estimate().gramian.abs().max() == 0


def test_a_task_that_is_absent_is_counted_by_its_own_steps():
    window = Window(2, 40, torch.zeros(2, 3, dtype=torch.float64))
    signal = torch.ones(2, 3, dtype=torch.float64)
    run(window, 2, signal, 0.0)
    run(window, 2, signal * torch.tensor([[1.0], [0.0]]), 0.0, present=[0])
    torch.testing.assert_close(window.estimate().gramian, torch.full((2, 2), 3.0, dtype=torch.float64))


def test_before_the_first_block_the_gramian_is_the_steps_own():
    window = Window(2, 20, torch.zeros(2, 3))
    own = torch.eye(2)
    assert window.estimate() is None
    assert window.gramian(own) is own


def test_without_a_positive_signal_the_diagonal_is_the_mean_square():
    window = Window(1, 20, torch.zeros(1, 1))
    for value in (1.0, -1.0):
        full = window.add(torch.tensor([[value]]), torch.ones(1), [0])
    assert full
    window.finish_block(window.sums @ window.sums.T)
    assert window.estimate().gramian.item() == -1
    assert window.gramian(torch.zeros(1, 1)).item() == 1


def test_a_task_seen_too_rarely_keeps_the_steps_own_products():
    window = Window(2, 20, torch.zeros(2, 3))
    run(window, 2, torch.ones(2, 3) * torch.tensor([[1.0], [0.0]]), 0.0, present=[0])
    own = torch.tensor([[9.0, 5.0], [5.0, 7.0]])
    assert window.gramian(own).tolist() == [[3.0, 5.0], [5.0, 7.0]]


@pytest.mark.parametrize("steps", [10, 25, 0, -20])
def test_lengths_that_cannot_be_cut_into_blocks_are_refused(steps):
    with pytest.raises(ValueError, match="`window` must be a multiple of 10 and at least 20"):
        Window(2, steps, torch.zeros(2, 3))


def test_a_saved_window_goes_on_in_the_same_bits():
    window, signal = Window(2, 40, torch.zeros(2, 5)), torch.randn(2, 5)
    run(window, 14, signal, 1.0)
    fresh = Window(2, 40, torch.zeros(2, 5))
    fresh.load_state_dict(copy.deepcopy(window.state_dict()))
    torch.manual_seed(1)
    run(window, 30, signal, 1.0)
    torch.manual_seed(1)
    run(fresh, 30, signal, 1.0)
    assert torch.equal(window.estimate().blocks, fresh.estimate().blocks)
    assert torch.equal(window.sums, fresh.sums)
    with pytest.raises(ValueError, match="The saved window has 40 steps"):
        Window(2, 20, torch.zeros(2, 5)).load_state_dict(window.state_dict())


def step(grads, model, write=True):
    ids = torch.arange(2).repeat(3)
    with grads.rows(ids):
        y = model(torch.randn(6, 4)).squeeze(-1)
        grads.backward(torch.stack([y[ids == t].square().mean() for t in range(2)]))
    if write:
        grads.write(torch.ones(2))
    rows = grads.jacobian.clone()
    grads.zero()
    return rows


def test_task_gradients_add_the_rows_of_every_written_step():
    model = nn.Linear(4, 1)
    grads = TaskGradients(model, TASKS, "one_pass", window=20)
    rows = [step(grads, model), step(grads, model)]
    step(grads, model, write=False)  # a step that was not taken
    estimate = grads.window.estimate()
    total = rows[0] + rows[1]
    torch.testing.assert_close(estimate.gramian[0, 1].float(), total[0] @ total[1] / 4)
    assert grads.window.steps == 0
    state = grads.state_dict()
    other = TaskGradients(model, TASKS, "one_pass", window=20)
    other.load_state_dict(state)
    torch.testing.assert_close(other.window.estimate().gramian, estimate.gramian)
