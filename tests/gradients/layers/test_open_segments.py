"""Which rows belong to which task."""

import pytest
import torch

from mtl_opt.batch import segments_of, task_rows
from mtl_opt.gradients.layers.open_segments import OpenSegments


def test_contiguous_rows_are_a_slice_and_scattered_rows_an_index():
    segments = segments_of(torch.tensor([2, 2, 0, 1, 0]), 4)
    assert segments.rows[2] == slice(0, 2)
    assert segments.rows[1] == slice(3, 4)
    assert segments.rows[0].tolist() == [2, 4]
    assert 3 not in segments.rows


@pytest.mark.parametrize(
    ("ids", "equal"),
    [
        ([0, 0, 1, 1], True),
        ([[0, 0], [1, 1]], True),
        ([[0, 1], [0, 1]], False),
        ([1, 1, 0, 0], False),
        ([0, 1, 1], False),
        ([0, 0, 0, 0], False),
        ([1], False),
    ],
)
def test_equal_means_all_tasks_in_order_with_as_many_rows(ids, equal):
    assert segments_of(torch.tensor(ids), 2).equal is equal


def test_split_gives_the_rows_of_every_task():
    x = torch.arange(12.0).view(2, 3, 2)
    parts = dict(segments_of(torch.tensor([[1, 0, 0], [1, 1, 0]]), 2).split(x))
    assert parts[0][0].tolist() == [[2, 3], [4, 5], [10, 11]]
    assert parts[1][0].tolist() == [[0, 1], [6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([0, 3]), "from 0 to 2, got 3"),
        (torch.tensor([0, -1]), "from 0 to 2, got -1"),
        (torch.tensor([0.0, 1.0]), r"must be integers \[batch\] or \[batch, seq\], got torch.float32 \(2,\)"),
        (torch.tensor([], dtype=torch.long), r"must be integers .* \(0,\)"),
        (torch.tensor(1), r"must be integers .* \(\)"),
        (torch.zeros(1, 2, 3, dtype=torch.long), r"must be integers .* \(1, 2, 3\)"),
    ],
)
def test_ids_that_are_no_task_indices_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        segments_of(ids, 3)


def test_the_innermost_context_decides_and_is_read_once():
    opened = OpenSegments(2)
    outer, inner = torch.tensor([0, 1]), torch.tensor([1, 0, 1])
    with task_rows(outer):
        first = opened.current()
        with task_rows(inner):
            assert opened.current().shape == (3,)
        assert opened.current() is first


def test_pieces_are_views_of_the_runs_of_each_task():
    x = torch.randn(2, 4, 3)
    ids = torch.tensor([[0, 0, 2, 0], [0, 2, 2, 0]])
    segments = segments_of(ids, 3)
    assert segments.runs == {0: (slice(0, 2), slice(3, 5), slice(7, 8)), 2: (slice(2, 3), slice(5, 7))}
    pieces = [(task, part) for task, (part,) in segments.pieces(x)]
    assert [task for task, _ in pieces] == [0, 0, 0, 2, 2]
    assert all(part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for _, part in pieces)
    for task, (whole,) in segments.split(x):
        assert torch.equal(torch.cat([part for t, part in pieces if t == task]), whole)


def test_a_task_with_many_runs_is_gathered_in_one_piece():
    ids = torch.arange(100) % 2
    segments = segments_of(ids, 2)
    assert segments.runs == {0: (), 1: ()}
    assert [(task, len(part)) for task, (part,) in segments.pieces(ids)] == [(0, 50), (1, 50)]


@pytest.mark.parametrize("ids", [[2, 2, 0, 1, 0], [[0, 0, 2, 0], [1, 2, 2, 0]]])
def test_every_row_gets_the_value_of_its_task(ids):
    ids, values = torch.tensor(ids), torch.tensor([1.5, -2.0, 4.0])
    assert torch.equal(segments_of(ids, 3).spread(values), values[ids])
