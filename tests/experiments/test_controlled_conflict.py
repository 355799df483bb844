"""The knobs do what they say, and the table of claims is well formed."""

import pytest
import torch

from experiments.controlled_conflict.claims import CLAIMS
from experiments.controlled_conflict.family import Knobs, Problem, descend
from mtl_opt import Denoised, PCGrad, Sum


@pytest.mark.parametrize("knobs", [Knobs(-0.7, 4.0, 2.0), Knobs(0.3, 0.1, 5.0, along=True)])
def test_knobs_set_angle_norm_ratio_and_gradients(knobs):
    problem = Problem(knobs)
    first, second = problem.slopes
    assert float(torch.cosine_similarity(first, second, dim=0)) == pytest.approx(knobs.cosine)
    assert float(second.norm() / first.norm()) == pytest.approx(knobs.ratio)
    x = torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for task, rows in enumerate(problem.gradients(x.detach())):
        (gradient,) = torch.autograd.grad(problem.losses(x)[task], x)
        torch.testing.assert_close(gradient, rows)


def test_noise_has_the_power_that_was_asked_for():
    problem, generator = Problem(Knobs(0.5, 3.0, noise=20.0)), torch.Generator().manual_seed(0)
    power = torch.stack([problem.noise(generator).square().sum(1) for _ in range(500)]).mean(0)
    torch.testing.assert_close(power, 20.0 * problem.slopes.square().sum(1), rtol=0.05, atol=0)


def test_one_step_of_the_sum_has_its_closed_form():
    knobs = Knobs(-0.5, 5.0, 1.0, along=True)
    total = Problem(knobs).slopes.sum(0)
    course = descend(Problem(knobs), Sum(), lr=1.0, steps=1)
    torch.testing.assert_close(course.x, -total)
    # summed loss after the step: −‖g‖² + h ‖g‖², with h = 1
    assert float(course.losses.sum()) == pytest.approx(0.0, abs=1e-12)


def test_the_same_noise_meets_every_method_and_a_window_corrects_the_cosine():
    problem = Problem(Knobs(0.5, noise=4.0))
    plain = descend(problem, Sum(), lr=0.0, steps=200, seed=3)
    denoised = descend(problem, Denoised(PCGrad(), window=200), lr=0.0, steps=200, seed=3)
    assert plain.conflicts == denoised.conflicts > 0.2
    assert denoised.corrected_cosine == pytest.approx(0.5, abs=0.2)


def test_every_claim_says_something_of_its_own():
    assert len({claim.prediction for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.expected for claim in CLAIMS} == {"win", "lose", "same"}


@pytest.mark.parametrize("claim", CLAIMS[:6], ids=lambda claim: claim.prediction[:40])
def test_claims_on_one_step_hold(claim):
    holds, numbers = claim.test(0)
    assert holds, numbers
