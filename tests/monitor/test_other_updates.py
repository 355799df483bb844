"""Angles and predicted changes, against explicit vectors and against steps that are really taken."""

import pytest
import torch
from references import diagnostics_reference as reference

from mtl_opt.monitor.other_updates import angles, angles_to_vector, fitted_weights, predicted_changes


def rows(tasks=3, params=8, seed=0):
    return torch.randn(tasks, params, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_angles_are_those_of_the_vectors():
    jacobian, others, taken = rows(), rows(5, 3, seed=1), rows(1, 3, seed=2)[0]
    gramian, update = jacobian @ jacobian.T, taken @ jacobian
    wanted = [reference.degrees((weights @ jacobian).numpy(), update.numpy()) for weights in others]
    assert angles(gramian, others, taken).tolist() == pytest.approx(wanted)
    products, norm = jacobian @ update, float(update.norm())
    assert angles_to_vector(gramian, others, products, norm).tolist() == pytest.approx(wanted)


def test_the_same_weights_have_the_angle_0_and_not_nearly_0():
    for seed in range(50):
        jacobian = rows(seed=seed).float()
        weights = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        assert angles(jacobian @ jacobian.T, weights[None], weights) == 0


def test_a_small_angle_keeps_its_digits():
    taken, other = torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 1e-7]])
    assert angles(torch.eye(2, dtype=torch.float64), other, taken).item() == pytest.approx(5.729578e-6, rel=1e-6)


def test_opposite_and_missing_updates():
    gramian = torch.eye(2)
    others = torch.tensor([[-1.0, 0.0], [0.0, 0.0]])
    found = angles(gramian, others, torch.tensor([2.0, 0.0]))
    assert found[0] == pytest.approx(180)
    assert found[1].isnan()
    assert angles(gramian, others, torch.zeros(2)).isnan().all()
    assert angles_to_vector(gramian, others, torch.zeros(2), 0.0).isnan().all()


def test_an_update_outside_the_rows_is_met_at_the_angle_of_space():
    jacobian = torch.eye(3)[:2]
    update = torch.tensor([1.0, 0.0, 1.0])
    found = angles_to_vector(jacobian @ jacobian.T, torch.tensor([[1.0, 0.0]]), jacobian @ update, float(update.norm()))
    assert found.item() == pytest.approx(45)


def test_fitted_weights_are_those_of_least_squares():
    jacobian, update = rows(), rows(1, 8, seed=3)[0]
    wanted = torch.linalg.lstsq(jacobian.T, update[:, None]).solution[:, 0]
    torch.testing.assert_close(fitted_weights(jacobian @ jacobian.T, jacobian @ update), wanted)
    twice = torch.cat([jacobian, jacobian[:1]])  # dependent rows: the shortest of all solutions
    found = fitted_weights(twice @ twice.T, twice @ update)
    torch.testing.assert_close(found @ twice, wanted @ jacobian)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
def test_the_change_is_what_a_small_step_of_gradient_descent_does(max_norm):
    target = rows(3, 8, seed=4)
    curvatures = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    point = torch.zeros(8, dtype=torch.float64, requires_grad=True)

    def losses(x):
        return curvatures * ((x - target) ** 2).sum(1) / 2

    jacobian = torch.stack([torch.autograd.grad(losses(point)[task], point)[0] for task in range(3)])
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.2, 3.0, -1.0]], dtype=torch.float64)
    found = predicted_changes(jacobian @ jacobian.T, weights, 1e-6, max_norm)
    for own, predicted in zip(weights, found, strict=True):
        point.grad = own @ jacobian
        if max_norm:
            torch.nn.utils.clip_grad_norm_([point], max_norm)
        moved = point.detach() - 1e-6 * point.grad
        torch.testing.assert_close(losses(moved) - losses(point).detach(), predicted, rtol=1e-4, atol=1e-12)
