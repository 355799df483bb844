"""Uncertainty weighting learns the noise level of every task."""

import pytest
import torch
from references.uncertainty_reference import UncertaintyReference

from mtl_opt.combiners import UncertaintyWeighting

FORMS = ("classification", "regression", "liebel_koerner")


@pytest.mark.parametrize("form", FORMS)
def test_it_equals_autograd_on_the_log_variances(form):
    combiner, reference = UncertaintyWeighting(form, lr=0.1), UncertaintyReference(3, form, lr=0.1)
    combiner.bind(["qa", "summary", "anger"])
    for step in range(40):
        tasks = [[0, 1, 2], [2, 0], [1, 2]][step % 3]
        losses = torch.rand(3, dtype=torch.float64)[tasks] * torch.tensor([0.1, 1.0, 10.0])[tasks]
        found = combiner.weights(None, losses, tasks=tasks)
        torch.testing.assert_close(found, reference.step(losses, tasks), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("form", "rest"),
    [
        ("classification", lambda loss: 1 / (2 * loss)),
        ("regression", lambda loss: 1 / (2 * loss)),
        # L / (2σ²) + log(1 + σ²) rests where L (1 + σ²) = 2 σ⁴
        ("liebel_koerner", lambda loss: 2 / (loss + (loss**2 + 8 * loss) ** 0.5)),
    ],
)
def test_weights_come_to_rest_where_the_total_is_smallest(form, rest):
    combiner, losses = UncertaintyWeighting(form, lr=0.02), torch.tensor([4.0, 1.0, 0.1], dtype=torch.float64)
    for _ in range(3000):
        weights = combiner.weights(None, losses)
    torch.testing.assert_close(weights, rest(losses), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("form", "start"), [("classification", 1.0), ("regression", 0.5), ("liebel_koerner", 0.5)])
def test_every_task_starts_alike(form, start):
    assert UncertaintyWeighting(form).weights(None, torch.tensor([5.0, 0.1])).tolist() == [start, start]


def test_a_task_with_a_large_loss_gets_a_small_weight():
    combiner = UncertaintyWeighting()
    for _ in range(50):
        weights = combiner.weights(None, torch.tensor([5.0, 0.1]))
    assert weights[0] < 1 < weights[1]


def test_uncertainty_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="`form` must be one of classification, regression, liebel_koerner, got 'l2'"):
        UncertaintyWeighting("l2")
    with pytest.raises(ValueError, match="`lr` must be a number above 0, got -1"):
        UncertaintyWeighting(lr=-1)
    with pytest.raises(ValueError, match=r"`UncertaintyWeighting` needs `losses` \[tasks\], got None"):
        UncertaintyWeighting().weights(torch.eye(2))
