"""MGDA finds the exact shortest point, on stationary and ill-scaled gradients too."""

import numpy as np
import pytest
import torch
from references.contract_inputs import LOSSES, jacobian
from references.projection_reference import shortest_in_hull

from mtl_opt.combiners import MGDA


def violation(gradients, weights):
    """Say by how much some task could still shorten the update, as a cosine."""
    lengths, update = gradients.norm(dim=1), weights @ gradients
    return ((update @ update - gradients @ update) / lengths).max() / (weights @ lengths)


def test_mgda_golden_values(golden):
    assert MGDA()(golden).tolist() == pytest.approx([0, 1, 1], abs=1e-12)
    assert MGDA().weights(golden @ golden.T).tolist() == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize("num_tasks", range(1, 7))
@pytest.mark.parametrize("num_params", [2, 4, 9])
@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_shortest_point_of_all_faces(num_tasks, num_params, seed):
    gradients = jacobian(num_tasks, num_params, seed=seed) + 0.3 * seed
    wanted = shortest_in_hull(gradients.numpy())
    assert np.linalg.norm(MGDA()(gradients).numpy() - wanted) < 1e-7 * gradients.norm()


@pytest.mark.parametrize("orders", [0, 3, 6])
@pytest.mark.parametrize("kind", ["random", "stationary", "opposite pair", "more tasks than parameters"])
@pytest.mark.parametrize("seed", range(10))
def test_no_task_can_shorten_the_update(orders, kind, seed):
    gradients = jacobian(6, 4 if kind == "more tasks than parameters" else 20, seed=seed)
    gradients *= torch.logspace(-orders, orders, 6, dtype=torch.float64)[:, None]
    if kind == "stationary":
        gradients -= gradients.mean(0)
    if kind == "opposite pair":
        gradients[0] = -3 * gradients[1]
    weights = MGDA().weights(gradients @ gradients.T)
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1)
    assert violation(gradients, weights) < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_the_update_is_no_longer_than_that_of_torchjd(seed):
    from torchjd.aggregation import MGDA as Peer

    gradients = jacobian(8, 12, seed=seed)
    ours, theirs = MGDA()(gradients), Peer(epsilon=1e-6, max_iters=2000)(gradients)
    assert ours.norm() <= theirs.norm() * (1 + 1e-9)  # Frank-Wolfe stops early
    assert (ours - theirs).norm() < 0.02 * gradients.norm(dim=1).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_params", [39, 60, 500])
def test_forty_stationary_gradients_end_at_zero(num_params, dtype):
    gradients = jacobian(40, num_params, dtype=dtype)
    gradients -= gradients.mean(0)
    assert MGDA()(gradients).norm() < 2e-3 * gradients.norm(dim=1).mean()


def test_mgda_update_conflicts_with_no_task():
    for seed in range(20):
        gradients = jacobian(5, 7, seed=seed)
        assert (gradients @ MGDA()(gradients)).min() > -1e-12


def test_a_zero_gradient_gets_all_the_weight():
    assert torch.equal(MGDA().weights(torch.diag(torch.tensor([1.0, 0.0, 2.0, 0.0]))), torch.tensor([0, 0.5, 0, 0.5]))


def test_small_gradients_win_unless_they_are_normalized():
    gramian = torch.diag(torch.tensor([1e-4, 1.0], dtype=torch.float64))
    assert MGDA().weights(gramian)[0].item() == pytest.approx(1 / (1 + 1e-4))
    assert MGDA("l2").weights(gramian).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("normalize", ["l2", "loss", "loss+"])
def test_normalized_gradients_choose_the_weights_of_the_plain_ones(normalize):
    gradients, losses = jacobian(4), LOSSES[:4]
    divisor = {"l2": gradients.norm(dim=1), "loss": losses, "loss+": losses * gradients.norm(dim=1)}[normalize]
    scaled = gradients / divisor[:, None]
    weights = MGDA(normalize).weights(gradients @ gradients.T, losses)
    torch.testing.assert_close(weights, MGDA().weights(scaled @ scaled.T), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(MGDA(normalize)(gradients, losses), weights @ gradients)


@pytest.mark.parametrize("normalize", ["loss", "loss+"])
def test_losses_that_cannot_be_divided_by_are_refused(normalize):
    combiner = MGDA(normalize)
    combiner.bind(["qa", "投诉"])
    with pytest.raises(ValueError, match=r"needs `losses` \[tasks\], got None"):
        combiner.weights(torch.eye(2))
    with pytest.raises(ValueError, match=r"The loss of task `投诉` must be positive for MGDA .*, got 0.0"):
        combiner.weights(torch.eye(2), torch.tensor([1.0, 0.0]))


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="`normalize` must be one of none, l2, loss, loss\\+, got 'L1'"):
        MGDA("L1")


def test_mgda_solve_that_does_not_end_warns_and_takes_the_mean(monkeypatch):
    def give_up(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("mtl_opt.combiners.common.solvers.nnls", give_up)
    monkeypatch.setattr("mtl_opt.combiners.common.solvers.active_set_solve", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="did not converge: the step takes the mean"):
        assert torch.equal(MGDA().weights(torch.eye(4)), torch.full((4,), 0.25))
