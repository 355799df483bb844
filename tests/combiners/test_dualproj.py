"""DualProj is the projection of the mean gradient."""

import numpy as np
import pytest
import torch
from references.contract_inputs import jacobian
from references.projection_reference import project

from mtl_opt.combiners import DualProj, Mean


def test_dualproj_golden_values(golden):
    # The peer's 0.5563, 1.1109 carry its regularisation of 1e-4: the exact ones are 5/9 and 10/9.
    assert DualProj()(golden).tolist() == pytest.approx([5 / 9, 10 / 9, 10 / 9])
    assert DualProj()(golden).tolist() == pytest.approx([0.5563, 1.1109, 1.1109], abs=1e-3)
    assert DualProj().weights(golden @ golden.T).tolist() == pytest.approx([0.6109, 0.5], abs=5e-4)


@pytest.mark.parametrize("orders", [0, 2])
@pytest.mark.parametrize("num_tasks", range(1, 7))
@pytest.mark.parametrize("num_params", [2, 4, 9])
def test_it_equals_the_projection_of_the_explicit_mean(num_tasks, num_params, orders):
    scale = torch.logspace(-orders, orders, num_tasks, dtype=torch.float64)[:, None]
    for seed in range(3):
        gradients = jacobian(num_tasks, num_params, seed=seed) * scale
        wanted = project(gradients.numpy(), gradients.mean(0).numpy())
        assert np.linalg.norm(DualProj()(gradients).numpy() - wanted) < 1e-8 * gradients.norm()


@pytest.mark.parametrize("orders", [0, 3, 6])
@pytest.mark.parametrize("kind", ["random", "stationary", "opposite pair", "more tasks than parameters"])
def test_it_satisfies_the_conditions_of_its_optimum(orders, kind):
    for seed in range(5):
        gradients = jacobian(6, 4 if kind == "more tasks than parameters" else 20, seed=seed)
        gradients *= torch.logspace(-orders, orders, 6, dtype=torch.float64)[:, None]
        if kind == "stationary":
            gradients -= gradients.mean(0)
        if kind == "opposite pair":
            gradients[0] = -3 * gradients[1]
        lengths = gradients.norm(dim=1)
        weights = DualProj().weights(gradients @ gradients.T)
        slack = gradients @ (weights @ gradients)
        assert (weights >= 1 / 6).all()
        assert (slack / lengths).min() > -1e-11 * lengths.mean()
        assert ((weights - 1 / 6) * slack).abs().max() < 1e-9 * lengths.mean() ** 2


def test_dualproj_conflicts_less_than_torchjd_and_agrees_without_its_regularisation():
    pytest.importorskip("quadprog")
    from torchjd.aggregation import DualProj as Peer
    from torchjd.linalg import QuadprogProjector

    for seed in range(10):
        gradients = jacobian(5, 6, seed=seed)
        exact = Peer(projector=QuadprogProjector(norm_eps=1e-15, reg_eps=1e-13))
        torch.testing.assert_close(DualProj()(gradients), exact(gradients), rtol=1e-6, atol=1e-7)
        ours, theirs = (gradients @ DualProj()(gradients)).min(), (gradients @ Peer()(gradients)).min()
        assert ours > min(theirs, -1e-14)


def test_it_equals_mean_where_the_mean_conflicts_with_nobody():
    gradients = torch.tensor([[3.0, 1.0], [-1.0, 2.0], [2.0, 2.0]])
    assert torch.equal(DualProj()(gradients), Mean()(gradients))


def test_a_preference_by_name_chooses_what_is_projected():
    combiner = DualProj({"qa": 1.0, "投诉": 3.0})
    combiner.bind(["投诉", "qa"])
    gradients = jacobian(2, seed=2)
    wanted = project(gradients.numpy(), (3 * gradients[0] + gradients[1]).numpy())
    np.testing.assert_allclose(combiner(gradients).numpy(), wanted, atol=1e-9)


def test_a_preference_that_does_not_fit_the_tasks_is_refused():
    with pytest.raises(ValueError, match="`preference` must be 2 numbers, one per task, got 3"):
        DualProj([1.0, 1.0, 1.0]).bind(["qa", "anger"])
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers"):
        DualProj([1.0, -1.0])
