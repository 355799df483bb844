"""COSMOS adds a reward for losses in the preferred proportion."""

import pytest
import torch
from references.losses_reference import cosmos, gradient, losses_over_scales
from torchjd.scalarization import COSMOS as Peer

from mtl_opt.combiners import COSMOS

PREFERENCE = torch.tensor([0.5, 0.125, 0.25, 0.125], dtype=torch.float64)


@pytest.mark.parametrize("lambda_", [0.0, 0.01, 8.0])
@pytest.mark.parametrize("decades", [0.5, 4.0])
def test_weights_are_the_derivatives_of_the_objective(lambda_, decades):
    for seed in range(10):
        losses = losses_over_scales(4, decades, seed)
        weights = COSMOS(lambda_, PREFERENCE.tolist()).weights(None, losses)
        wanted = gradient(lambda leaf: cosmos(leaf, lambda_, PREFERENCE), losses)
        torch.testing.assert_close(weights, wanted, rtol=1e-9, atol=1e-9 * wanted.abs().max().item())
        peer = gradient(Peer(lambda_, PREFERENCE), losses)
        torch.testing.assert_close(weights, peer, rtol=1e-9, atol=1e-9 * wanted.abs().max().item())


def test_losses_in_the_preferred_proportion_get_the_preference():
    weights = COSMOS(8.0, PREFERENCE.tolist()).weights(None, 3 * PREFERENCE)
    torch.testing.assert_close(weights, PREFERENCE)
    torch.testing.assert_close(COSMOS(8.0).weights(None, torch.tensor([2.0])), torch.tensor([1.0]))


def test_a_task_whose_loss_is_too_large_gets_more():
    weights = COSMOS(2.0).weights(None, torch.tensor([3.0, 1.0]))
    assert weights[0] > 0.5 > weights[1]


def test_losses_of_zero_get_the_preference_and_huge_ones_finite_weights():
    assert COSMOS(preference=[3, 1]).weights(None, torch.zeros(2)).tolist() == [0.75, 0.25]
    for losses in ([1e300, 1e300], [1e-29, 0.0], [-1e200, 1e-200]):
        assert COSMOS().weights(None, torch.tensor(losses, dtype=torch.float64)).float().isfinite().all()


def test_cosmos_preference_is_shared_among_the_present_tasks():
    combiner, pair = COSMOS(preference={"qa": 3, "ner": 5, "anger": 1}), COSMOS(preference=[3, 1])
    combiner.bind(["qa", "ner", "anger"])
    losses = torch.tensor([2.0, 1.0])
    torch.testing.assert_close(combiner.weights(None, losses, tasks=[0, 2]), pair.weights(None, losses))


def test_cosmos_arguments_are_checked():
    for value in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="`lambda_` must be a number of at least 0, got"):
            COSMOS(value)
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers, got"):
        COSMOS(preference={"qa": 0.0})
    with pytest.raises(ValueError, match=r"`preference` must name the tasks \['qa', 'ner'\], got \['qa'\]"):
        COSMOS(preference={"qa": 1.0}).bind(["qa", "ner"])
    with pytest.raises(ValueError, match=r"`COSMOS` needs `losses` \[tasks\], got None"):
        COSMOS().weights(torch.eye(2))
