"""Smoothed averages weights over the steps."""

import pytest
import torch
from references.contract_inputs import jacobian

from mtl_opt.combiners import IMTLG, Mean, Smoothed, Sum

NAMES = ["qa", "投诉", "anger"]


def test_it_equals_the_recurrence_and_torchjd():
    from torchjd.aggregation import CRMOGMWeighting

    combiner, inner = Smoothed(IMTLG(), beta=0.7), IMTLG()
    peer = CRMOGMWeighting(_Same(inner), alpha=0.7)
    average = None
    for seed in range(6):
        gramian = jacobian(seed=seed) @ jacobian(seed=seed).T
        weights = IMTLG().weights(gramian)
        average = weights if average is None else 0.7 * average + 0.3 * weights
        found = combiner.weights(gramian)
        torch.testing.assert_close(found, average)
        torch.testing.assert_close(found, peer(gramian))


def test_a_late_task_starts_with_its_first_weight():
    combiner = Smoothed(Mean(), beta=0.5)
    combiner.bind(NAMES)
    combiner.weights(torch.eye(2), tasks=[0, 1])
    assert combiner.weights(torch.eye(3)).tolist() == pytest.approx([5 / 12, 5 / 12, 1 / 3])


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_share_of_the_past_out_of_range_is_refused(beta):
    with pytest.raises(ValueError, match="`beta` must be at least 0 and below 1, got"):
        Smoothed(Sum(), beta)


class _Same(torch.nn.Module):
    """Lend our weights to TorchJD's average."""

    def __init__(self, combiner):
        super().__init__()
        self.combiner = combiner

    def forward(self, gramian):
        return self.combiner.weights(gramian)
