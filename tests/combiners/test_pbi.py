"""PBI descends along a preferred direction and towards it."""

import pytest
import torch
from references.losses_reference import gradient, losses_over_scales, pbi
from torchjd.scalarization import PBI as Peer

from mtl_opt.combiners import PBI

PREFERENCE = torch.tensor([0.5, 0.125, 0.25, 0.125], dtype=torch.float64)
IDEAL = torch.tensor([0.1, -2.0, 0.0, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("theta", [0.0, 0.5, 5.0])
@pytest.mark.parametrize("decades", [0.5, 4.0])
def test_weights_are_the_derivatives_of_both_distances(theta, decades):
    for seed in range(10):
        losses = losses_over_scales(4, decades, seed)
        weights = PBI(theta, PREFERENCE.tolist(), IDEAL.tolist()).weights(None, losses)
        wanted = gradient(lambda leaf: pbi(leaf, theta, PREFERENCE, IDEAL), losses)
        torch.testing.assert_close(weights, wanted, rtol=1e-9, atol=1e-9)
        peer = gradient(Peer(theta, PREFERENCE, IDEAL), losses)  # adds 1e-12 under its root
        torch.testing.assert_close(weights, peer, rtol=1e-6, atol=1e-6)


def test_the_weights_have_the_norm_of_both_parts():
    weights = PBI(theta=5.0).weights(None, torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64))
    torch.testing.assert_close(weights.norm(), torch.tensor(26.0, dtype=torch.float64).sqrt())


def test_on_the_direction_the_kink_takes_no_side():
    for scale in (1e-12, 0.3, 1e12):
        weights = PBI(preference=PREFERENCE.tolist()).weights(None, scale * PREFERENCE)
        torch.testing.assert_close(weights, PREFERENCE / PREFERENCE.norm())
    forty = PBI().weights(None, torch.full((40,), 0.7, dtype=torch.float64))
    torch.testing.assert_close(forty, torch.full((40,), 40**-0.5, dtype=torch.float64))
    assert PBI().weights(None, torch.tensor([2.0])).tolist() == [1.0]
    assert PBI().weights(None, torch.zeros(4)).tolist() == [0.5] * 4


def test_the_weights_do_not_depend_on_the_unit_of_the_losses():
    losses = torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)
    for unit in (1e-300, 1e-15, 1e15, 1e300):
        torch.testing.assert_close(PBI().weights(None, unit * losses), PBI().weights(None, losses))


def test_pbi_preference_is_shared_among_the_present_tasks():
    combiner, pair = PBI(preference={"qa": 3, "ner": 5, "anger": 1}), PBI(preference=[3, 1])
    combiner.bind(["qa", "ner", "anger"])
    losses = torch.tensor([2.0, 1.0])
    torch.testing.assert_close(combiner.weights(None, losses, tasks=[0, 2]), pair.weights(None, losses))


def test_pbi_arguments_are_checked():
    for value in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="`theta` must be a number of at least 0, got"):
            PBI(value)
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers, got"):
        PBI(preference=[1.0, 0.0])
    with pytest.raises(ValueError, match="`reference` must be finite, got"):
        PBI(reference={"qa": torch.inf})
    with pytest.raises(ValueError, match="`preference` must be 2 numbers, one per task, got 3"):
        PBI(preference=[1, 2, 3]).bind(["qa", "ner"])
    with pytest.raises(ValueError, match=r"`PBI` needs `losses` \[tasks\], got None"):
        PBI().weights(torch.eye(2))
