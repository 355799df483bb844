"""Small solves hold at any scale of the rows."""

import numpy as np
import pytest
from references.tracking_reference import nearest

from mtl_opt.combiners.common.solvers import (
    cholesky_rows,
    min_norm_point,
    nonnegative_solve,
    over_lengths,
    project_onto_simplex,
    pseudo_solve,
    unit_rows,
)


def draw(num_tasks, num_params, seed=0):
    return np.random.default_rng(seed).normal(size=(num_tasks, num_params))


@pytest.mark.parametrize("scale", [1e-140, 1e-7, 1.0, 1e140])
def test_unit_rows_do_not_depend_on_the_scale(scale):
    rows = draw(4, 6)
    rows[2] = 0
    cosines, lengths = unit_rows(rows @ rows.T * scale**2)
    assert np.diag(cosines).tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(cosines, unit_rows(rows @ rows.T)[0], rtol=1e-12)
    assert over_lengths(np.ones(4), lengths)[2] == 0


@pytest.mark.parametrize("num_params", [2, 6])
def test_a_factor_has_as_many_columns_as_the_rows_span(num_params):
    cosines, _ = unit_rows(draw(4, num_params) @ draw(4, num_params).T)
    found = cholesky_rows(cosines, 1e-14)
    assert found.shape == (4, min(4, num_params))
    np.testing.assert_allclose(found @ found.T, cosines, atol=1e-13)
    assert cholesky_rows(np.zeros((3, 3)), 1e-14).shape == (3, 0)


@pytest.mark.parametrize("num_params", [2, 6])
def test_a_singular_system_is_solved_by_its_pseudo_inverse(num_params):
    matrix, right = draw(4, num_params) @ draw(4, num_params).T, np.arange(1.0, 5.0)
    found, reached = pseudo_solve(matrix, right, 1e-13)
    np.testing.assert_allclose(found, np.linalg.pinv(matrix, rcond=1e-13) @ right, rtol=1e-9)
    share = np.linalg.norm(matrix @ found) ** 2 / np.linalg.norm(right) ** 2
    assert reached == pytest.approx(share)


@pytest.mark.parametrize("total", [0.0, 0.3, 1.0])
def test_the_projection_is_the_nearest_point_of_the_simplex(total):
    for seed in range(10):
        values = draw(1, 6, seed)[0] * 3
        found = project_onto_simplex(values, total)
        np.testing.assert_allclose(found, nearest(values, total), atol=1e-12)
    assert project_onto_simplex(np.array([-1e300, 1e15, 0.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_a_non_negative_solution_satisfies_the_conditions_of_its_optimum(size):
    columns, target = draw(6, 4).T, size * draw(4, 1, seed=5)[:, 0]
    found = nonnegative_solve(columns, target)
    slope = columns.T @ (columns @ found - target) / size
    assert (found >= 0).all()
    assert slope.min() > -1e-12
    assert np.abs(found / size * slope).max() < 1e-12


def test_nothing_is_added_where_the_target_is_zero():
    assert (nonnegative_solve(draw(6, 4).T, np.zeros(4)) == 0).all()


@pytest.mark.parametrize("orders", [0, 6])
def test_the_shortest_point_cannot_be_shortened_by_any_of_the_points(orders):
    points = draw(6, 4) * np.logspace(-orders, orders, 6)[:, None] + 1e-7
    shares = min_norm_point(points)
    shortest = shares @ points
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    slack = (points @ shortest - shortest @ shortest) / np.linalg.norm(points, axis=1)
    assert slack.min() > -1e-12 * (shares @ np.linalg.norm(points, axis=1))


def test_points_at_zero_share_the_shortest_point():
    assert min_norm_point(np.array([[1.0], [0.0], [0.0]])).tolist() == [0, 0.5, 0.5]
