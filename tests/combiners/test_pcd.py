"""PCD follows the primary task and guarantees progress to the others."""

import pytest
import torch
from references.balance_reference import pcd

from mtl_opt.combiners import PCD, Mean


def draw(num_tasks, seed, spread=0.0, num_params=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, num_params or 2 * num_tasks + 3, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("num_tasks", [1, 2, 4, 8])
def test_it_equals_torchjd_step_by_step(tau, num_tasks):
    from torchjd.aggregation import PCD as Peer

    ours, theirs = PCD(tau=tau, beta=0.9), Peer(tau=tau, beta=0.9, eps=0.0)
    for seed in range(6):
        rows = draw(num_tasks, seed, spread=2) * (1 + seed)
        wanted = theirs(rows)
        assert (ours(rows) - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_quadratic_programme_in_the_parameters(seed):
    rows = draw(4, seed)
    wanted = torch.from_numpy(pcd(rows.numpy(), rows.norm(dim=1).numpy(), 0.3))
    torch.testing.assert_close(PCD(tau=0.3)(rows), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spread", [0, 3, 6])
@pytest.mark.parametrize("num_tasks", [2, 5, 20])
def test_the_conditions_of_optimality_hold_at_any_scale(num_tasks, spread):
    tau = 0.3
    for seed in range(4):
        rows = draw(num_tasks, seed, spread)
        lengths = rows.norm(dim=1)
        units = rows / lengths[:, None]
        on_units = PCD(tau=tau).weights(rows @ rows.T) * lengths
        direction = (on_units / on_units[0]) @ units  # the multiplier of the primary unit gradient is 1
        slack = units[1:] @ direction - tau
        assert slack.min() > -1e-8
        assert on_units.min() >= 0
        assert (slack * on_units[1:] / on_units[0]).abs().max() < 1e-8
        assert float((on_units @ units).norm() / lengths[0]) == pytest.approx(1)


def test_the_primary_gradient_passes_where_the_others_gain_enough():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.5]])
    assert PCD(tau=0.5).weights(rows @ rows.T).tolist() == [1, 0]


def test_constraints_that_cannot_be_met_are_dropped():
    rows = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, -2.0]])
    torch.testing.assert_close(PCD(tau=0.1)(rows), rows[0])


def test_opposite_tasks_without_a_guarantee_stand_still():
    rows = torch.tensor([[1.0, 1.0], [-2.0, -2.0]])
    assert PCD(tau=0.0).weights(rows @ rows.T).tolist() == [0, 0]


def test_a_zero_primary_gradient_gives_no_update():
    rows = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert PCD().weights(rows @ rows.T).tolist() == [0, 0]


def test_without_the_primary_task_a_step_takes_the_mean():
    combiner = PCD(primary="投诉")
    combiner.bind(["qa", "anger", "投诉"])
    gramian = torch.eye(2)
    assert torch.equal(combiner.weights(gramian, tasks=[0, 1]), Mean().weights(gramian))


def test_norms_are_averaged_over_a_tasks_own_steps():
    combiner = PCD(beta=0.5)
    combiner.bind(["a", "b"])
    combiner.weights(torch.diag(torch.tensor([4.0, 9.0])))
    combiner.weights(torch.tensor([[16.0]]), tasks=[0])
    assert combiner.mean_squares.tolist() == pytest.approx([0.5 * 2 + 0.5 * 16, 4.5])
    assert combiner.steps.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 1.5}, "`tau` must be from 0 to 1, got 1.5"),
        ({"tau": float("nan")}, "`tau` must be from 0 to 1, got nan"),
        ({"beta": 1.0}, "`beta` must be at least 0 and below 1, got 1.0"),
    ],
)
def test_pcd_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PCD(**arguments)


@pytest.mark.parametrize("primary", ["summary", 2, -1])
def test_a_primary_task_that_is_none_is_refused(primary):
    combiner = PCD(primary=primary)
    with pytest.raises(ValueError, match=r"`primary` must name tasks of \['qa', 'anger'\] or their indices, got"):
        combiner.bind(["qa", "anger"])
    assert combiner.tasks is None
