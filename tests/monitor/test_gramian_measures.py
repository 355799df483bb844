"""Closed forms and explicit vectors against what is read off a Gramian."""

import math

import numpy as np
import pytest
import torch
from references import diagnostics_reference as reference

from mtl_opt.monitor.gramian_measures import (
    condition_number,
    conflict_rates,
    cosines_of,
    curvature_bound,
    magnitude_similarity,
    update_shares,
)

ANGLE = math.radians(120)
TWO = torch.tensor([[3.0, 0.0], [2 * math.cos(ANGLE), 2 * math.sin(ANGLE)]], dtype=torch.float64)  # norms 3 and 2


def rows(tasks=4, params=9, seed=0):
    return torch.randn(tasks, params, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_gradients_have_their_closed_forms():
    gramian = TWO @ TWO.T
    assert magnitude_similarity(gramian)[0, 1] == pytest.approx(12 / 13)
    # cos = -1/2: (1 - 1/4) (9 + 4 + 6) / (9 + 4 - 6)
    assert curvature_bound(gramian)[0, 1] == pytest.approx(0.75 * 19 / 7)
    assert condition_number(gramian) == pytest.approx(math.sqrt((13 + math.sqrt(61)) / (13 - math.sqrt(61))))
    assert conflict_rates(gramian) == 1
    # d = g1 + g2: <g1, d> = 9 - 3, <g2, d> = 4 - 3
    assert update_shares(gramian, torch.ones(2)).tolist() == pytest.approx([6 / 7, 1 / 7])


@pytest.mark.parametrize("seed", range(5))
def test_every_pair_equals_the_definition_on_the_vectors(seed):
    jacobian = rows(seed=seed) * torch.tensor([[1.0], [10.0], [0.1], [3.0]])
    gramian, vectors = jacobian @ jacobian.T, jacobian.numpy()
    for i in range(4):
        for j in range(4):
            a, b = vectors[i], vectors[j]
            assert magnitude_similarity(gramian)[i, j] == pytest.approx(reference.magnitude_similarity(a, b))
            assert cosines_of(gramian)[i, j] == pytest.approx(reference.cosine(a, b))
            assert curvature_bound(gramian)[i, j] == pytest.approx(reference.curvature_bound(a, b), abs=1e-12)
    assert condition_number(gramian) == pytest.approx(np.linalg.cond(vectors))


def test_many_steps_at_once_are_each_step_alone():
    gramians = torch.stack([rows(seed=s) @ rows(seed=s).T for s in range(6)])
    weights = torch.rand(6, 4)
    for function in (magnitude_similarity, curvature_bound, condition_number, conflict_rates, cosines_of):
        torch.testing.assert_close(function(gramians), torch.stack([function(one) for one in gramians]))
    alone = torch.stack([update_shares(g, w) for g, w in zip(gramians, weights, strict=True)])
    torch.testing.assert_close(update_shares(gramians, weights), alone)


def test_an_absent_task_leaves_the_others_as_they_are():
    jacobian = rows()
    few = jacobian[[0, 2, 3]]
    jacobian[1] = 0
    gramian, wanted = jacobian @ jacobian.T, few @ few.T
    kept = torch.tensor([0, 2, 3])
    for function in (magnitude_similarity, curvature_bound, cosines_of):
        found = function(gramian)
        assert found[1].isnan().all()
        assert found[:, 1].isnan().all()
        torch.testing.assert_close(found[kept][:, kept], function(wanted))
    assert condition_number(gramian) == pytest.approx(float(condition_number(wanted)))
    assert conflict_rates(gramian) == pytest.approx(float(conflict_rates(wanted)))
    shares = update_shares(gramian, torch.tensor([1.0, 0.0, 2.0, 1.0]))
    assert shares[1] == 0
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_scale_changes_nothing(scale, dtype):
    gramian = (TWO @ TWO.T).to(dtype)
    for function in (magnitude_similarity, curvature_bound, condition_number):
        torch.testing.assert_close(function(gramian * scale), function(gramian), rtol=1e-5, atol=1e-6)


def test_what_is_undefined_is_said():
    nothing = torch.zeros(2, 2)
    assert condition_number(nothing).isnan()
    assert conflict_rates(nothing).isnan()
    assert update_shares(nothing, torch.ones(2)).isnan().all()
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert condition_number(opposite) == math.inf
    assert curvature_bound(opposite)[0, 1] == math.inf
    assert update_shares(opposite, torch.ones(2)).isnan().all()
    same = torch.ones(2, 2)
    assert curvature_bound(same)[0, 1] == 0
    assert condition_number(same) == math.inf
    one = torch.tensor([[4.0]])
    assert condition_number(one) == 1
    assert conflict_rates(one).isnan()


def test_float32_rows_that_depend_on_each_other_are_not_given_a_number_made_of_rounding():
    jacobian = rows(3, 4000).float()
    jacobian[2] = jacobian[0] - 2 * jacobian[1]
    assert condition_number(jacobian @ jacobian.T) == math.inf


def test_a_task_that_is_pulled_along_has_a_negative_share():
    gramian = torch.tensor([[9.0, -2.0], [-2.0, 1.0]])
    assert update_shares(gramian, torch.ones(2)).tolist() == pytest.approx([7 / 6, -1 / 6])
