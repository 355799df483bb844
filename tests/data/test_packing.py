"""Packs hold every row once, whole, with its task and its own positions."""

import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data.packing import best_packing, collate_packed, first_fit
from mtl_opt.data.text.tokens import EncodedRow

ROWS = st.lists(st.lists(st.integers(1, 30), max_size=6), min_size=1, max_size=5).filter(any)


def row(number: int, length: int) -> EncodedRow:
    ids = [1 + (number * 37 + i) % 200 for i in range(length)]
    return EncodedRow(ids, [IGNORE_INDEX if i % 3 == 2 else token for i, token in enumerate(ids)], shortened=False)


def rows_of(lengths):
    numbers = iter(range(1000))
    return [[row(next(numbers), length) for length in task] for task in lengths]


def unpacked(batch):
    """Read rows back: cut every pack where positions begin again."""
    found = []
    for pack in range(len(batch.input_ids)):
        starts = [i for i, p in enumerate(batch.position_ids[pack].tolist()) if p == 0] + [batch.input_ids.shape[1]]
        for begin, end in itertools.pairwise(starts):
            part = slice(begin, end)
            found.append(
                (
                    int(batch.task_ids[pack, begin]),
                    batch.input_ids[pack, part].tolist(),
                    batch.labels[pack, part].tolist(),
                    batch.attention_mask[pack, part].tolist(),
                    batch.task_ids[pack, part].unique().numel(),
                    batch.position_ids[pack, part].tolist(),
                )
            )
    return found


@given(ROWS, st.integers(0, 120))
def test_every_row_is_there_once_with_its_task_labels_and_positions(lengths, widest):
    rows = rows_of(lengths)
    batch = collate_packed(rows, pad_token_id=0, widest=widest)
    found = unpacked(batch)
    real = [(task, ids, labels) for task, ids, labels, mask, _, _ in found if mask[0]]
    wanted = [(t, r.input_ids, [IGNORE_INDEX, *r.labels[1:]]) for t, own in enumerate(rows) for r in own]
    assert sorted(real) == sorted(wanted)
    assert all(owners == 1 and positions == list(range(len(ids))) for _, ids, _, _, owners, positions in found)
    rest = [(ids, labels, mask) for _, ids, labels, mask, _, _ in found if not mask[0]]
    assert all(set(ids) == {0} and set(labels) == {IGNORE_INDEX} and not any(mask) for ids, labels, mask in rest)


@given(ROWS, st.integers(0, 120))
def test_packs_are_no_wider_than_the_longest_row_or_what_is_allowed(lengths, widest):
    batch = collate_packed(rows_of(lengths), 0, widest)
    longest = max(length for task in lengths for length in task)
    assert batch.input_ids.shape[1] <= max(longest, widest)
    assert batch.input_ids.numel() <= longest * sum(map(len, lengths))  # never more than padding takes


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_first_fit_decreasing_stays_within_its_bound(lengths):
    width = 40
    bins = first_fit(lengths, width)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in b) <= width for b in bins)
    at_least = max(-(-sum(lengths) // width), sum(length > width / 2 for length in lengths))
    assert len(bins) <= max(at_least * 11 / 9 * 1.25 + 1, at_least)  # the bound is to the optimum, which is more


def test_lengths_that_fill_bins_exactly_take_no_more_bins():
    pieces = [[9, 7], [8, 8], [10, 6], [13, 3], [5, 11]]
    lengths = [length for pair in pieces for length in pair]
    random.Random(0).shuffle(lengths)
    assert len(first_fit(lengths, 16)) == 5


def test_a_length_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`width` must be at least the longest length, 9, got 8"):
        first_fit([3, 9], 8)


def test_wider_packs_are_taken_only_where_they_save_a_tenth():
    assert len(best_packing([16, 16, 16, 16], widest=64)) == 4  # nothing to save
    assert len(best_packing([10, 9, 9, 9, 9], widest=64)) == 5  # nothing to save either
    assert len(best_packing([12, 8, 8, 8, 8, 4], widest=64)) == 2  # 48 tokens in packs of 24 instead of 60
    assert len(best_packing([12, 8, 8, 8, 8, 4], widest=12)) == 5


def test_rows_of_a_task_stand_next_to_each_other():
    batch = collate_packed(rows_of([[3, 3, 3, 3], [3, 3, 3, 3], [12]]), 0)
    tasks = batch.task_ids.flatten()
    assert len(tasks.unique_consecutive()) == 3
    assert batch.input_ids.shape == (3, 12)


def test_a_batch_without_rows_is_refused():
    with pytest.raises(ValueError, match="at least one row, got none for 2 tasks"):
        collate_packed([[], []], pad_token_id=0)


def test_all_tensors_are_whole_numbers_and_move_together():
    batch = collate_packed(rows_of([[3], [2]]), 0)
    assert {t.dtype for t in vars(batch).values() if t is not None} == {torch.int64}
    assert batch.to("meta").position_ids.device.type == "meta"
