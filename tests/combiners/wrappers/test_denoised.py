"""Denoised clips the window's Gramian and delegates."""

import numpy as np
import pytest
import torch
from references.contract_inputs import LOSSES, jacobian

from mtl_opt.combiners import (
    CAGrad,
    Denoised,
    Every,
    GradNorm,
    MoCo,
    NormMatched,
    PCGrad,
    Scoped,
    SDMGrad,
    Smoothed,
    Sum,
    UPGrad,
)
from mtl_opt.combiners.common.solvers import nearest_semidefinite

INDEFINITE = torch.tensor([[1.0, 1.5, 0.2], [1.5, 1.0, -0.4], [0.2, -0.4, 2.0]], dtype=torch.float64)


def test_a_gramian_is_passed_on_as_it_is():
    rows = jacobian(4, 9) * torch.logspace(-6, 6, 4, dtype=torch.float64)[:, None]  # clipping would lose short rows
    gramian = rows @ rows.T
    assert torch.equal(Denoised(UPGrad()).weights(gramian), UPGrad().weights(gramian))
    assert torch.equal(Denoised(PCGrad(seed=3))(rows), PCGrad(seed=3)(rows))


def test_an_indefinite_estimate_is_clipped_to_the_nearest_semidefinite_matrix():
    values, vectors = torch.linalg.eigh(INDEFINITE)
    assert values[0] < 0
    clipped = vectors @ torch.diag(values.clamp(min=0)) @ vectors.T
    torch.testing.assert_close(Denoised(CAGrad()).weights(INDEFINITE), CAGrad().weights(clipped))
    found = nearest_semidefinite(INDEFINITE.numpy(), 1e-14)
    np.testing.assert_allclose(found, clipped.numpy(), atol=1e-14)
    for seed in range(50):  # no other semidefinite matrix is nearer
        step = 0.1 * jacobian(3, 3, seed=seed).numpy()
        other = found + step @ step.T
        assert np.linalg.norm(other - INDEFINITE.numpy()) >= np.linalg.norm(found - INDEFINITE.numpy())
    assert (nearest_semidefinite(-np.eye(2), 1e-14) == 0).all()


def test_wrappers_around_it_answer_for_it():
    inner = Denoised(PCGrad(), window=40)
    for wrapped in (Smoothed(inner), Every(inner, 2), NormMatched(Smoothed(inner))):
        assert (wrapped.requires, wrapped.window, wrapped.over, wrapped.by) == ("window", 40, "all", None)
    assert (Sum().window, PCGrad().window) == (0, 0)


def test_norms_are_matched_on_the_clipped_estimate():
    combiner = NormMatched(Denoised(UPGrad()))
    clipped = torch.from_numpy(nearest_semidefinite(INDEFINITE.numpy(), 1e-14))
    weights = combiner.weights(INDEFINITE)
    assert float(weights @ clipped @ weights) == pytest.approx(float(clipped.sum()) / 9)


def test_absent_tasks_and_losses_reach_the_wrapped_combiner():
    combiner, alone = Denoised(GradNorm(layers="all", lr=0.3)), GradNorm(layers="all", lr=0.3)
    for one in (combiner, alone):
        one.bind(["qa", "投诉", "anger"])
    for seed, tasks in enumerate(([0, 1, 2], [2, 0], [1])):
        rows = jacobian(3, 9, seed=seed)[tasks]
        found = combiner.weights(rows @ rows.T, LOSSES[tasks], tasks=tasks)
        assert torch.equal(found, alone.weights(rows @ rows.T, LOSSES[tasks], tasks=tasks))


@pytest.mark.parametrize("make", [Sum, MoCo, SDMGrad, lambda: Denoised(PCGrad()), lambda: Scoped(PCGrad())])
def test_what_requires_no_gramian_of_a_step_is_refused(make):
    with pytest.raises(ValueError, match="`Denoised` must wrap a combiner that requires one Gramian of a step"):
        Denoised(make())


def test_a_method_of_one_layer_is_refused():
    with pytest.raises(ValueError, match="looks at all layers; `GradNorm` looks at 'last'"):
        Denoised(GradNorm())


@pytest.mark.parametrize("window", [0, 10, 25, 20.0, True])
def test_a_window_that_does_not_fall_into_ten_blocks_is_refused(window):
    with pytest.raises(ValueError, match=r"`window` must be a (whole number of at least 20|multiple of 10), got"):
        Denoised(PCGrad(), window)
