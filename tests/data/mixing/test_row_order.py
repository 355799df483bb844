"""The order of one task's rows: a permutation, stratified by label or grouped by length."""

import numpy as np
import pytest

from mtl_opt.data.mixing import RowOrder


@pytest.mark.parametrize("labels", [None, np.arange(101) % 3])
@pytest.mark.parametrize("lengths", [None, np.arange(101) % 17])
def test_every_order_is_a_permutation_that_seed_and_epoch_decide(labels: object, lengths: object) -> None:
    order = RowOrder("情绪", 101, 3, 4, labels, lengths)
    first = list(order.permutation(0))
    assert sorted(first) == list(range(101))
    assert first == list(order.permutation(0)) != list(order.permutation(1))


def test_stratified_rows_have_every_label_in_proportion_in_each_stretch() -> None:
    labels = np.array([0] * 80 + [1] * 20)
    order = np.array(RowOrder("a", 100, 0, labels=labels).permutation(0))
    assert labels[order].reshape(10, 10).sum(axis=1).tolist() == [2] * 10


def test_grouped_batches_hold_rows_of_similar_length_and_the_incomplete_one_comes_last() -> None:
    lengths = np.arange(42) * 5 % 42
    order = np.array(RowOrder("a", 42, 0, 4, lengths=lengths).permutation(0))
    batches = [lengths[order[i : i + 4]] for i in range(0, 42, 4)]
    assert all(batch.max() - batch.min() < 4 for batch in batches)
    assert len(batches[-1]) == 2
