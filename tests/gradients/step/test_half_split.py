"""Rows dealt to two halves: two estimates of the same gradient that share no row."""

import pytest
import torch
from references.jacobian_reference import Rows, join, random_rows, reference_jacobian, token_losses

from mtl_opt.gradients import TaskGradients
from mtl_opt.gradients.processes import Processes
from mtl_opt.gradients.step.half_split import HalfSplit

TASKS = ("qa", "summary", "投诉")
ENGINES = ("one_pass", "per_task")


def fill(grads, model, batches) -> list[torch.Tensor]:
    """Take micro-batches with losses of both halves; return where each row went."""
    owners = []
    for rows in batches:
        with grads.rows(rows.ids):
            owners.append(grads.owners)
            owned = Rows(rows.input_ids, rows.attention_mask, rows.labels, grads.owners)
            losses, counts = token_losses(model, owned, 2 * grads.num_tasks)
            grads.backward(losses.view(2, -1), counts.view(2, -1))
    return owners


def test_rows_of_a_task_go_to_the_halves_in_turn_across_micro_batches():
    split = HalfSplit(2, Processes())
    assert split.owners(torch.tensor([0, 0, 0, 1])).tolist() == [0, 2, 0, 1]
    assert split.owners(torch.tensor([1, 0, 1, 0])).tolist() == [3, 2, 1, 0]
    split.restart()
    assert split.owners(torch.tensor([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_each_half_is_the_gradient_of_its_own_rows(engine, make_llama, row_error):
    model = make_llama().double()
    batches = [random_rows((0, 1, 0, 2, 2)), random_rows((2, 1, 0, 0))]
    grads = TaskGradients(model, TASKS, engine, halves=True)
    owners = torch.cat(fill(grads, model, batches))
    whole = join(batches)
    owned = Rows(whole.input_ids, whole.attention_mask, whole.labels, owners)
    wanted = torch.cat([g.flatten(1) for g in reference_jacobian(model, token_losses, owned, 6).values()], 1)
    product = wanted[:3] @ wanted[3:].T
    # The model rounds to float32 inside.
    assert float((grads.two_sample_gramian() - product).norm() / product.norm()) < 1e-6
    plain = reference_jacobian(model, token_losses, whole, 3)
    columns = torch.cat([plain[name].flatten(1) for name in grads.buffer.parameters], 1)
    assert row_error(grads.jacobian, columns) < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_losses_and_counts_are_those_of_both_halves_together(engine, make_llama):
    model, rows = make_llama(), random_rows((0, 0, 2, 2, 0))
    grads = TaskGradients(model, TASKS, engine, halves=True)
    fill(grads, model, [rows])
    losses, counts = token_losses(model, rows, 3)
    torch.testing.assert_close(grads.losses()[[0, 2]].float(), losses[[0, 2]].detach())
    assert grads.counts.tolist() == counts.tolist()
    assert grads.present == [0, 2]


def test_a_task_with_one_row_is_named(make_llama):
    model = make_llama()
    grads = TaskGradients(model, TASKS, "one_pass", halves=True)
    fill(grads, model, [random_rows((0, 0, 2))])
    with pytest.raises(ValueError, match=r"Task `投诉` has labels in one half of its rows only"):
        grads.gramian()


def test_flat_losses_are_taken_and_others_refused(make_llama):
    model, rows = make_llama(), random_rows((0, 0, 1, 1))
    grads = TaskGradients(model, TASKS, "one_pass", halves=True)
    with grads.rows(rows.ids):
        with pytest.raises(ValueError, match=r"`losses` must be \[2, 3\], one per task .* and half, got shape \(3,\)"):
            grads.backward(*token_losses(model, rows, 3))
        owned = Rows(rows.input_ids, rows.attention_mask, rows.labels, grads.owners)
        grads.backward(*token_losses(model, owned, 6))
    assert grads.present == [0, 1]


def test_without_halves_there_is_no_two_sample_gramian_and_outside_rows_no_owner(make_llama):
    model, rows = make_llama(), random_rows((0, 1, 2))
    grads = TaskGradients(model, TASKS, "one_pass")
    with grads.rows(rows.ids):
        assert torch.equal(grads.owners, rows.ids)
        grads.backward(*token_losses(model, rows, 3))
    with pytest.raises(ValueError, match="halves=True"):
        grads.two_sample_gramian()
    with pytest.raises(ValueError, match="No rows are open"):
        _ = grads.owners


def test_packed_rows_are_refused():
    with pytest.raises(ValueError, match=r"`ids` must be \[batch\] where halves are wanted"):
        HalfSplit(2, Processes()).owners(torch.zeros(2, 3, dtype=torch.int64))


def test_the_two_sample_gramian_is_unbiased_and_the_plain_one_is_not():
    torch.manual_seed(0)
    expected = torch.randn(2, 5, dtype=torch.float64)
    linear = torch.nn.Linear(5, 1, bias=False, dtype=torch.float64)
    grads = TaskGradients(linear, ["a", "b"], "one_pass", halves=True)
    ids = torch.arange(2).repeat_interleave(8)
    two_sample = plain = 0
    for _ in range(400):
        x = expected[ids] + 3 * torch.randn(16, 5, dtype=torch.float64)
        with grads.rows(ids):
            y = linear(x).squeeze(-1)
            sums = torch.zeros(4, dtype=y.dtype).index_add(0, grads.owners, y)
            counts = torch.bincount(grads.owners, minlength=4)
            grads.backward(sums / counts, counts)
        two_sample = two_sample + grads.two_sample_gramian() / 400
        plain = plain + grads.gramian() / 400
        grads.zero()
    wanted = expected @ expected.T
    assert float((two_sample - wanted).abs().max()) < 0.6
    assert float((plain - wanted).diagonal().min()) > 4  # the noise of 8 rows: 9 · 5 / 8 = 5.6
