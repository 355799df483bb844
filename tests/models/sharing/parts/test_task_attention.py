"""Attention of each task's own: torch's own attention for one task, rows apart, masks honoured."""

import pytest
import torch
from models.sharing_cases import TASKS
from references.sharing_reference import as_multihead

from mtl_opt import TaskAttention, TaskGradients, task_rows
from mtl_opt.models import private_parameters

X = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor(
    [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
)


def make(num_tasks=3):
    torch.manual_seed(1)
    names = TASKS if num_tasks == len(TASKS) else None
    return TaskAttention(8, num_tasks, 2, tasks=names)


def plain(attention, task, x, mask=None, causal=False):
    """Run torch's attention behind the shared projection."""
    h = attention.shared(x)
    hidden = None if mask is None else ~mask.bool()
    ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if causal else None
    return as_multihead(attention, task)(h, h, h, key_padding_mask=hidden, attn_mask=ahead, need_weights=False)[0]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, MASK])
def test_one_task_is_the_attention_of_torch(mask, causal):
    attention = make(1)
    with task_rows(torch.zeros(6, dtype=torch.long)):
        found = attention(X, mask=mask, causal=causal)
    wanted = plain(attention, 0, X, mask, causal)
    kept = torch.ones(6, 5, dtype=torch.bool) if mask is None else mask.bool()
    torch.testing.assert_close(found[kept], wanted[kept])
    assert found.isfinite().all()


@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0, 2, 0), (1, 1, 1, 1, 1, 1)])
def test_every_row_goes_through_the_attention_of_its_task(ids):
    attention = make()
    with task_rows(torch.tensor(ids)):
        found = attention(X, mask=MASK, causal=True)
    for row, task in enumerate(ids):
        wanted = plain(attention, task, X[row : row + 1], MASK[row : row + 1], causal=True)
        kept = MASK[row].bool()
        torch.testing.assert_close(found[row][kept], wanted[0][kept])


def test_padding_on_either_side_changes_nothing():
    attention = make()
    ids = torch.tensor([0, 1, 2, 0, 1, 2])
    left = torch.cat([torch.full((6, 2, 8), 7.0), X], 1)
    mask = torch.cat([torch.zeros(6, 2), torch.ones(6, 5)], 1)
    with task_rows(ids):
        torch.testing.assert_close(attention(left, mask=mask, causal=True)[:, 2:], attention(X, causal=True))
        torch.testing.assert_close(attention(left, mask=mask)[:, 2:], attention(X))


@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0, 2, 0)])
def test_gradients_of_one_pass_are_those_of_a_backward_per_task(ids):
    found = []
    for engine in ("one_pass", "per_task"):
        attention = make()
        grads = TaskGradients(attention, TASKS, engine, private=private_parameters(torch.nn.Sequential(attention)))
        with grads.rows(torch.tensor(ids)):
            rows = attention(X, mask=MASK).square().mean((1, 2))
            grads.backward(torch.stack([rows[torch.tensor(ids) == task].mean() for task in range(3)]))
        own = [p.grad for group in grads.private.groups for p in group]
        grads.gramian()
        found.append((grads.jacobian.clone(), own))
    torch.testing.assert_close(found[0], found[1])


def test_bad_arguments_and_rows_are_refused():
    with pytest.raises(ValueError, match="`dim` must be divisible by `num_heads`, got 8 and 3"):
        TaskAttention(8, 2, 3)
    with pytest.raises(ValueError, match="`num_tasks` must be a whole number of at least 1, got 0"):
        TaskAttention(8, 0, 2)
    with pytest.raises(ValueError, match="`tasks` must be 2 different names"):
        TaskAttention(8, 2, 2, tasks=("摘要", "摘要"))
    attention = make()
    with pytest.raises(ValueError, match=r"run the model inside `with task_rows\(ids\):`"):
        attention(X)
    with (
        task_rows(torch.zeros(6, 5, dtype=torch.long)),
        pytest.raises(ValueError, match="rows of this batch are packed"),
    ):
        attention(X)
    with task_rows(torch.zeros(6, dtype=torch.long)), pytest.raises(ValueError, match=r"`mask` must be \[6, 5\]"):
        attention(X, mask=MASK[:, :3])


@pytest.mark.parametrize("task", [0, 2])
def test_a_task_id_says_whose_rows_all_are(task):
    attention = make()
    with task_rows(torch.full((6,), task)):
        wanted = attention(X, mask=MASK, causal=True)
    torch.testing.assert_close(attention(X, task, mask=MASK, causal=True), wanted, rtol=0, atol=0)
    with task_rows(torch.tensor([0, 1, 2, 0, 1, 2])):  # the id of the call wins over the rows around it
        torch.testing.assert_close(attention(X, task, mask=MASK, causal=True), wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("task", "shown"), [(3, "got 3"), (-1, "got -1"), (MASK, "got a Tensor; .*padding by `mask=`")]
)
def test_a_task_id_that_is_none_is_refused(task, shown):
    with pytest.raises(ValueError, match=f"`task_id` must be the index of a task from 0 to 2, {shown}"):
        make()(X, task)
