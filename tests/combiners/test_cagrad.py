"""CAGrad closes the gap between its two forms: the worst-off task's progress, and the bound by any weights."""

import numpy as np
import pytest
import torch
from references.contract_inputs import jacobian
from scipy.optimize import minimize

from mtl_opt.combiners import MGDA, CAGrad, DualProj, Mean

C = [0.2, 0.5, 0.9, 1.0, 3.0]


def bound(gradients, weights, c):
    """Bound the worst-off task's progress of every update in the ball, by weights on the simplex."""
    mean, along = gradients.mean(0), weights @ gradients
    return along @ mean + c * mean.norm() * along.norm()


def gap(gradients, c):
    """Measure how far CAGrad is from the bound of its own weights or, where tasks cancel, of theirs."""
    weights = CAGrad(c).weights(gradients @ gradients.T)
    beyond = (weights - 1 / len(gradients)).clamp(min=0)
    candidates = [MGDA().weights(gradients @ gradients.T)]
    if beyond.sum() > 0:
        candidates.append(beyond / beyond.sum())
    lowest = min(((bound(gradients, w, c), w) for w in candidates), key=lambda pair: pair[0])
    size = lowest[1] @ gradients.norm(dim=1) * gradients.mean(0).norm() * (1 + c)
    return (lowest[0] - (gradients @ (weights @ gradients)).min()) / size


def test_cagrad_golden_values(golden):
    assert CAGrad(c=0.5)(golden).tolist() == pytest.approx([0.1835, 1.2041, 1.2041], abs=5e-5)
    assert CAGrad(c=0.5).weights(golden @ golden.T).tolist() == pytest.approx([0.7041, 0.5], abs=5e-5)


@pytest.mark.parametrize("c", C)
@pytest.mark.parametrize("num_tasks", range(2, 9))
@pytest.mark.parametrize("num_params", [3, 12])
def test_no_update_in_the_ball_is_better_for_the_worst_off_task(num_tasks, num_params, c):
    for seed in range(4):
        gradients = jacobian(num_tasks, num_params, seed=seed)
        update = CAGrad(c)(gradients)
        assert (update - gradients.mean(0)).norm() <= c * gradients.mean(0).norm() * (1 + 1e-10)
        assert gap(gradients, c) < 1e-10


@pytest.mark.parametrize("c", C)
@pytest.mark.parametrize(
    "kind", ["random", "opposite pair", "parallel pair", "two cancel", "more tasks than parameters"]
)
def test_the_gap_is_closed_on_ill_scaled_and_dependent_gradients(kind, c):
    for seed in range(5):
        gradients = jacobian(6, 3 if kind == "more tasks than parameters" else 15, seed=seed)
        gradients *= torch.logspace(-1.5, 1.5, 6, dtype=torch.float64)[:, None]
        if kind == "two cancel":
            gradients[:2] -= gradients[:2].mean(0)
        if kind.endswith("pair"):
            gradients[0] = (-3 if kind.startswith("opposite") else 2) * gradients[1]
        assert gap(gradients, c) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_its_objective_is_that_of_a_general_solver(seed):
    gradients = jacobian(4, 9, seed=seed)
    start = np.full(4, 0.25)
    found = minimize(
        lambda w: float(bound(gradients, torch.from_numpy(w), 0.5)), start, bounds=[(0, 1)] * 4, method="SLSQP",
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-12},
    )  # fmt: skip
    assert (gradients @ CAGrad(0.5)(gradients)).min().item() == pytest.approx(found.fun, abs=1e-5)


@pytest.mark.parametrize("c", [0.5, 1.0])
def test_it_agrees_with_torchjd_and_is_no_worse_for_the_worst_off_task(c):
    pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    from torchjd.aggregation import CAGrad as Peer

    for seed in range(5):
        gradients = jacobian(5, 12, seed=seed)
        ours, theirs = CAGrad(c)(gradients), Peer(c=c)(gradients)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        # The peer's solver stops early, on a Gramian that was changed by 1e-4.
        inside = gradients.mean(0) + (theirs - gradients.mean(0)) * min(
            1, c * gradients.mean(0).norm() / (theirs - gradients.mean(0)).norm()
        )
        assert (gradients @ ours).min() >= (gradients @ inside).min() - 1e-10


@pytest.mark.parametrize("c", [1.0, 1.5])
def test_from_radius_one_on_it_conflicts_with_no_task(c):
    for seed in range(20):
        gradients = jacobian(5, 4 + seed % 5, seed=seed)
        assert (gradients @ CAGrad(c)(gradients)).min() > -1e-10


def test_tasks_in_another_order_get_the_same_update():
    for seed in range(10):
        gradients = jacobian(6, 9, seed=seed)
        torch.testing.assert_close(CAGrad()(gradients[[3, 1, 5, 0, 2, 4]]), CAGrad()(gradients), rtol=1e-8, atol=1e-10)


def test_radius_zero_is_the_mean():
    gradients = jacobian(5)
    torch.testing.assert_close(CAGrad(0.0)(gradients), Mean()(gradients))


def test_rescaling_divides_the_update():
    gradients = jacobian(5)
    plain = CAGrad(0.4)(gradients)
    torch.testing.assert_close(CAGrad(0.4, rescale=1)(gradients), plain / 1.16)
    torch.testing.assert_close(CAGrad(0.4, rescale=2)(gradients), plain / 1.4)


@pytest.mark.parametrize("c", C)
def test_a_mean_of_zero_gives_zero(c):
    gradients = jacobian(4, 9)
    gradients[3] = -gradients[:3].sum(0)
    assert CAGrad(c)(gradients).norm() < 1e-12


def test_where_tasks_cancel_and_the_ball_is_wide_it_is_the_closest_update_without_harm():
    gradients = jacobian(4, 9, seed=2)
    gradients[1] = -2 * gradients[0]
    torch.testing.assert_close(CAGrad(2.0)(gradients), DualProj()(gradients), rtol=1e-8, atol=1e-10)


def test_a_zero_gradient_counts_in_the_mean_alone():
    gradients = jacobian(3, 9)
    gradients[1] = 0
    weights = CAGrad().weights(gradients @ gradients.T)
    assert weights[1].item() == pytest.approx(1 / 3)
    assert weights.sum() > 1.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"c": -0.1}, "`c` must be a number of at least 0, got -0.1"),
        ({"c": float("inf")}, "`c` must be a number of at least 0, got inf"),
        ({"rescale": 3}, "`rescale` must be 0, 1 or 2, got 3"),
    ],
)
def test_cagrad_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CAGrad(**arguments)


def test_cagrad_solve_that_does_not_end_warns_and_takes_the_mean(monkeypatch, golden):
    def give_up(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("mtl_opt.combiners.common.solvers.nnls", give_up)
    monkeypatch.setattr("mtl_opt.combiners.common.solvers.active_set_solve", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="did not converge"):
        assert CAGrad().weights(golden @ golden.T).tolist() == [0.5, 0.5]
