"""Smooth Tchebycheff scalarisation descends a smooth maximum."""

import pytest
import torch
from references.losses_reference import gradient, losses_over_scales, smooth_tchebycheff
from torchjd.scalarization import STCH

from mtl_opt.combiners import SmoothTchebycheff

PREFERENCE = torch.tensor([0.5, 0.125, 0.25, 0.125], dtype=torch.float64)
IDEAL = torch.tensor([0.1, -2.0, 0.0, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("mu", [0.1, 1.0, 10.0])
def test_weights_are_the_derivatives_of_the_smooth_maximum(mu):
    for seed in range(10):
        losses = losses_over_scales(4, 1.0, seed)
        combiner = SmoothTchebycheff(mu, preference=PREFERENCE.tolist(), reference=IDEAL.tolist())
        wanted = gradient(lambda leaf: smooth_tchebycheff(leaf, mu, PREFERENCE, IDEAL), losses)
        torch.testing.assert_close(combiner.weights(None, losses), wanted, rtol=1e-9, atol=1e-300)
        peer = STCH(mu, weights=PREFERENCE, reference=IDEAL)
        torch.testing.assert_close(combiner.weights(None, losses), gradient(peer, losses), rtol=1e-9, atol=1e-300)


def test_without_a_preference_all_tasks_are_alike():
    losses = losses_over_scales(3, 1.0, seed=5)
    torch.testing.assert_close(SmoothTchebycheff().weights(None, losses), gradient(STCH(1.0), losses))


def test_a_small_mu_leaves_only_the_worst_task_and_a_large_one_the_preference():
    losses = torch.tensor([2.0, 5.0, 3.0], dtype=torch.float64)
    assert SmoothTchebycheff(mu=1e-9).weights(None, losses).tolist() == [0.0, 1 / 3, 0.0]
    combiner = SmoothTchebycheff(mu=1e9, preference=[1, 2, 1])
    torch.testing.assert_close(combiner.weights(None, losses) * 3, torch.tensor([0.25, 0.5, 0.25]).double())


def test_negative_and_huge_losses_are_welcome():
    for losses in ([-5.0, 1.0], [1e15, -1e15], [1e300, 1e-300]):
        assert SmoothTchebycheff(mu=1e-10).weights(None, torch.tensor(losses, dtype=torch.float64)).isfinite().all()


def test_stch_preference_is_shared_among_the_present_tasks():
    combiner, pair = SmoothTchebycheff(preference={"qa": 3, "ner": 5, "anger": 1}), SmoothTchebycheff(preference=[3, 1])
    combiner.bind(["qa", "ner", "anger"])
    losses = torch.tensor([2.0, 1.0])
    torch.testing.assert_close(combiner.weights(None, losses, tasks=[0, 2]), pair.weights(None, losses))


def test_stch_arguments_are_checked():
    with pytest.raises(ValueError, match="`mu` must be a number above 0, got 0"):
        SmoothTchebycheff(mu=0)
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers, got"):
        SmoothTchebycheff(preference=[1.0, -1.0])
    with pytest.raises(ValueError, match="`reference` must be finite, got nan"):
        SmoothTchebycheff(reference=torch.nan)
    combiner = SmoothTchebycheff(reference=[1.0, 2.0])
    with pytest.raises(ValueError, match="`reference` must be 3 numbers, one per task, got 2"):
        combiner.bind(["qa", "ner", "anger"])
    with pytest.raises(ValueError, match=r"`reference` must name the tasks \['qa'\], got \['ner'\]"):
        SmoothTchebycheff(reference={"ner": 1.0}).bind(["qa"])
    with pytest.raises(ValueError, match=r"`SmoothTchebycheff` needs `losses` \[tasks\], got None"):
        SmoothTchebycheff().weights(torch.eye(2))
