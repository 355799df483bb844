"""UPGrad projects exactly, whatever the scale of the rows."""

import numpy as np
import pytest
import torch
from references.contract_inputs import jacobian
from references.projection_reference import project, upgrad

from mtl_opt.combiners import CAGrad, DualProj, Mean, PCGrad, UPGrad
from mtl_opt.combiners.common.solvers import relative_precision, unit_rows
from mtl_opt.combiners.upgrad import added_by_projection

SCALES = [0, 3, 6]


def scaled(num_tasks, num_params, orders, seed):
    """Draw gradients whose norms run over some orders of magnitude up and down."""
    rows = jacobian(num_tasks, num_params, seed=seed)
    return rows * torch.logspace(-orders, orders, num_tasks, dtype=torch.float64)[:, None]


def conflict(gradients, update):
    """Measure the worst conflict as a cosine, against the mean length."""
    lengths = gradients.norm(dim=1)
    return (-(gradients @ update) / lengths).max() / lengths.mean()


def test_upgrad_golden_values(golden):
    # Half of PCGrad, exactly. The peer's 0.2929, 1.9004 carry its regularisation of 1e-4.
    assert UPGrad()(golden).tolist() == pytest.approx([0.2924, 1.9006, 1.9006], abs=5e-5)
    assert UPGrad()(golden).tolist() == pytest.approx([0.2929, 1.9004, 1.9004], abs=1e-3)
    assert UPGrad().weights(golden @ golden.T).tolist() == pytest.approx([1.1109, 0.7894], abs=5e-4)


@pytest.mark.parametrize("orders", [0, 2])
@pytest.mark.parametrize("num_tasks", range(1, 7))
@pytest.mark.parametrize("num_params", [2, 4, 9])
def test_upgrad_equals_the_projection_of_explicit_gradients(num_tasks, num_params, orders):
    for seed in range(3):
        gradients = scaled(num_tasks, num_params, orders, seed)
        wanted = upgrad(gradients.numpy())
        assert np.linalg.norm(UPGrad()(gradients).numpy() - wanted) < 1e-8 * gradients.norm()


@pytest.mark.parametrize("orders", SCALES)
@pytest.mark.parametrize("num_params", [3, 6, 30])
def test_its_projections_satisfy_the_conditions_of_their_optimum(orders, num_params):
    for seed in range(5):
        gradients = scaled(6, num_params, orders, seed)
        cosines, _ = unit_rows((gradients @ gradients.T).numpy())
        added = added_by_projection(cosines, relative_precision(gradients, 6))
        unit = (gradients / gradients.norm(dim=1)[:, None]).numpy()
        slack = (np.eye(6) + added) @ unit @ unit.T  # of every projection against every unit gradient
        assert (added >= 0).all()
        assert slack.min() > -1e-12 * (1 + added.max())
        assert np.abs(added * slack).max() < 1e-11 * (1 + added.max()) ** 2


@pytest.mark.parametrize("orders", SCALES)
@pytest.mark.parametrize("kind", ["random", "stationary", "opposite pair", "parallel pair", "zero row"])
def test_upgrad_update_conflicts_with_no_task(orders, kind):
    for seed in range(5):
        gradients = scaled(6, 8, orders, seed)
        if kind == "stationary":
            gradients -= gradients.mean(0)
        if kind == "zero row":
            gradients[2] = 0
        if kind.endswith("pair"):
            gradients[0] = (-3 if kind.startswith("opposite") else 2) * gradients[1]
        alive = gradients[gradients.norm(dim=1) > 0]
        assert conflict(alive, UPGrad()(gradients)) < 1e-12


def test_upgrad_conflicts_less_than_torchjd_and_agrees_without_its_regularisation():
    pytest.importorskip("quadprog")
    from torchjd.aggregation import UPGrad as Peer
    from torchjd.linalg import QuadprogProjector

    for seed in range(5):
        gradients = scaled(5, 9, 1, seed)
        exact = Peer(projector=QuadprogProjector(norm_eps=1e-15, reg_eps=1e-13))
        torch.testing.assert_close(UPGrad()(gradients), exact(gradients), rtol=1e-6, atol=1e-7)
        assert conflict(gradients, UPGrad()(gradients)) < conflict(gradients, Peer()(gradients)).clamp(min=1e-14)


@pytest.mark.parametrize("num_params", [2, 5, 40])
def test_two_tasks_with_preference_one_equal_pcgrad(num_params):
    for seed in range(20):
        gradients = jacobian(2, num_params, seed=seed)
        torch.testing.assert_close(UPGrad([1.0, 1.0])(gradients), PCGrad()(gradients), rtol=1e-9, atol=1e-12)


def test_it_is_linear_in_the_scale_of_every_row():
    gradients = jacobian(5, 9)
    terms = torch.stack([UPGrad((1e-12 + torch.eye(5)[task]).tolist())(gradients) for task in range(5)])
    for scale in ([1.0, 2.0, 3.0, 4.0, 5.0], [1e-6, 1e-3, 1.0, 1e3, 1e6]):
        by = torch.tensor(scale, dtype=torch.float64)
        torch.testing.assert_close(5 * UPGrad()(by[:, None] * gradients), by @ terms, rtol=1e-8, atol=1e-8)


def test_it_equals_mean_where_nothing_conflicts():
    gradients = torch.rand(5, 7, dtype=torch.float64)
    torch.testing.assert_close(UPGrad()(gradients), Mean()(gradients))


@pytest.mark.parametrize("num_params", [39, 60, 500])
def test_forty_stationary_gradients_project_to_zero(num_params):
    gradients = jacobian(40, num_params)
    gradients -= gradients.mean(0)
    assert UPGrad()(gradients).norm() < 1e-6 * gradients.norm(dim=1).mean()


def test_it_is_stationary_only_where_the_gradients_are():
    for seed in range(10):
        gradients = jacobian(3, 9, seed=seed)
        assert UPGrad()(gradients).norm() > 5e-3


def test_a_preference_by_name_follows_the_tasks_that_are_present():
    combiner = UPGrad({"qa": 1.0, "投诉": 3.0, "anger": 0.5})
    combiner.bind(["anger", "qa", "投诉"])
    assert combiner.weights(torch.eye(2), tasks=[2, 0]).tolist() == [3.0, 0.5]


def test_one_projection_is_that_of_the_reference():
    gradients = jacobian(4, 6, seed=3)
    found = UPGrad([1.0, 1e-13, 1e-13, 1e-13])(gradients)
    np.testing.assert_allclose(found.numpy(), project(gradients.numpy(), gradients[0].numpy()), atol=1e-9)


@pytest.mark.parametrize("preference", [[1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_upgrad_preference_that_is_not_positive_is_refused(preference):
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers"):
        UPGrad(preference)


def test_a_solve_that_does_not_end_warns_and_takes_the_preference(monkeypatch, golden):
    def give_up(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("mtl_opt.combiners.common.solvers.nnls", give_up)
    monkeypatch.setattr("mtl_opt.combiners.common.solvers.active_set_solve", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="did not converge"):
        assert UPGrad().weights(golden @ golden.T).tolist() == [0.5, 0.5]


def cancelling(num_tasks, num_cancelling, params, seed):
    """Draw rows of which some cancel each other exactly, up to rounding."""
    rows = torch.randn(num_tasks, params, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    shares = torch.rand(num_cancelling - 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1
    rows[num_cancelling - 1] = -(shares @ rows[: num_cancelling - 1])
    return rows


@pytest.mark.parametrize("combiner", [UPGrad, DualProj, lambda: CAGrad(c=1.0)], ids=["upgrad", "dualproj", "cagrad"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-7), (torch.float32, 5e-3)])
@pytest.mark.parametrize(("num_tasks", "num_cancelling", "params"), [(20, 8, 100), (40, 20, 100), (20, 8, 10)])
def test_no_task_conflicts_where_some_gradients_cancel_each_other(
    combiner, dtype, most, num_tasks, num_cancelling, params
):
    for seed in range(20):
        rows = cancelling(num_tasks, num_cancelling, params, seed)
        update = combiner()(rows.to(dtype)).double()
        if update.norm() < 1e-3 * rows.norm(dim=1).mean():
            continue  # a direction for all but those that cancel is all but gone: what is left is rounding
        assert float((rows @ update / rows.norm(dim=1) / update.norm()).min()) >= -most


def test_the_order_of_dependent_rows_does_not_matter():
    for seed in range(10):
        rows = cancelling(20, 8, 100, seed)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(UPGrad()(rows[order]), UPGrad()(rows), rtol=1e-9, atol=1e-9)
