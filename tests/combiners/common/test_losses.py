"""What methods of the losses share."""

import numpy as np
import pytest
import torch

from mtl_opt.combiners import LogSum
from mtl_opt.combiners.common.losses import (
    needed_losses,
    non_negative_losses,
    preference_shares,
    softmax,
)


def test_losses_are_taken_above_their_smallest_value():
    combiner = LogSum()
    step = combiner.enter(None, torch.tensor([2.0, -1.0]), None)
    assert needed_losses(combiner, step).tolist() == [2.0, -1.0]
    assert non_negative_losses(combiner, step, np.array([0.5, -1.0])).tolist() == [1.5, 0.0]
    with pytest.raises(ValueError, match="loss of task `1` must be at least 0 for LogSum, got -1"):
        non_negative_losses(combiner, step)


def test_shares_add_up_to_one_at_any_scale():
    values = np.array([3.0, -2.0, 0.5])
    np.testing.assert_allclose(softmax(values, 2.0), torch.softmax(torch.tensor(values) / 2, 0).numpy())
    for scale in (1e-300, 1e15, 1e300):
        for temperature in (1e-300, 1.0, 1e300):
            assert softmax(scale * values, temperature).sum() == pytest.approx(1.0)
    np.testing.assert_allclose(preference_shares(np.array([1e308, 1e308])), [0.5, 0.5])
