"""A batch knows its tasks, and one context says which task owns a row."""

import dataclasses

import pytest
import torch

from mtl_opt.batch import IGNORE_INDEX, TaskBatch, current_task_rows, note_row_length, task_rows, unflatten_rows


def test_ignored_labels_are_those_that_cross_entropy_ignores():
    logits = torch.randn(2, 5)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([3, IGNORE_INDEX]))
    assert torch.equal(loss, torch.nn.functional.cross_entropy(logits[:1], torch.tensor([3])))


def test_moving_a_batch_moves_every_tensor_and_keeps_the_first():
    whole = torch.ones(2, 3, dtype=torch.long)
    batch = TaskBatch(whole, whole, whole, torch.tensor([0, 1]), position_ids=whole, targets=torch.ones(2))
    assert TaskBatch(whole, whole, whole, torch.tensor([0, 1])).to("meta").position_ids is None
    moved = batch.to("meta")
    assert all(getattr(moved, field.name).device.type == "meta" for field in dataclasses.fields(moved))
    assert batch.task_ids.device.type == "cpu"


def test_outside_any_context_no_task_owns_a_row():
    assert current_task_rows() is None


def test_the_innermost_context_is_the_current_one():
    outer, inner = torch.tensor([0, 1]), torch.tensor([1, 1, 0])
    with task_rows(outer):
        assert current_task_rows() is outer
        with task_rows(inner):
            assert current_task_rows() is inner
        assert current_task_rows() is outer
    assert current_task_rows() is None


def test_an_exception_closes_the_context():
    with pytest.raises(RuntimeError, match="mine"), task_rows(torch.tensor([0])):
        raise RuntimeError("mine")
    assert current_task_rows() is None


def test_a_recomputed_layer_sees_the_ids_in_the_backward():
    seen = []

    def layer(x):
        seen.append(current_task_rows())
        return x.square()

    ids = torch.tensor([0, 1])
    with task_rows(ids):
        y = torch.utils.checkpoint.checkpoint(layer, torch.ones(2, requires_grad=True), use_reentrant=False)
        y.sum().backward()
    assert len(seen) == 2
    assert all(found is ids for found in seen)


def test_tokens_below_each_other_get_their_rows_back_once_the_length_is_known():
    flat = torch.arange(12.0).view(6, 2)
    assert unflatten_rows(flat) is None  # no context
    with task_rows(torch.tensor([0, 1])):
        assert unflatten_rows(flat) is None  # nobody has said how long a row is
        note_row_length(torch.zeros(1, 6))  # positions that all rows share say nothing
        assert unflatten_rows(flat) is None
        note_row_length(torch.zeros(2, 3))
        assert torch.equal(unflatten_rows(flat), flat.view(2, 3, 2))
        assert unflatten_rows(flat[:5]) is None
        assert unflatten_rows(flat[:2]) is None  # one vector per row
        assert unflatten_rows(flat[None]) is None
        with task_rows(torch.tensor([[0, 0, 1]] * 2)):  # a task per token
            assert torch.equal(unflatten_rows(flat), flat.view(2, 3, 2))
    ids = torch.tensor([0, 1])
    with task_rows(ids):
        note_row_length(torch.zeros(2, 3))
    with task_rows(ids):  # a second backward of the same rows
        assert unflatten_rows(flat) is not None
    with task_rows(ids.clone()):
        assert unflatten_rows(flat) is None
