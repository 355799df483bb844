"""Which combiners weights and ratios do not move: what the attribute says is what the update does."""

import pytest
import torch

from mtl_opt import COMBINERS, NormMatched
from mtl_opt.combiners import FairGrad, NashMTL, Smoothed, Sum

SCALES = torch.tensor([4.0, 1.0, 0.5, 2.0], dtype=torch.float64)


def updates(combiner, scales, steps=5):
    """Combine the rows of a few steps, scaled by constants."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    expected, found = draw(4, 30), []
    for _ in range(steps):
        rows = expected + 0.5 * draw(*((2, 4, 30) if combiner.requires == "halves" else (4, 30)))
        found.append(combiner(rows * scales[:, None], draw(4).abs() + 0.5))
    return torch.stack(found)


@pytest.mark.parametrize("name", sorted(COMBINERS))
def test_the_attribute_says_what_the_update_does(name):
    plain = updates(COMBINERS[name](), torch.ones(4, dtype=torch.float64))
    scaled = updates(COMBINERS[name](), SCALES)
    cosines = torch.cosine_similarity(plain, scaled, dim=1)
    assert COMBINERS[name]().scale_invariant == bool((cosines > 1 - 1e-6).all()), cosines


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad_is_invariant_at_proportional_fairness_alone(alpha):
    plain, scaled = (updates(FairGrad(alpha), scales) for scales in (torch.ones_like(SCALES), SCALES))
    invariant = bool((torch.cosine_similarity(plain, scaled, dim=1) > 1 - 1e-6).all())
    assert FairGrad(alpha).scale_invariant == invariant == (alpha == 1)


def test_a_wrapper_answers_for_what_it_wraps():
    assert NormMatched(Smoothed(NashMTL(), 0.5)).scale_invariant
    assert not NormMatched(Sum()).scale_invariant
