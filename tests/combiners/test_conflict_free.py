"""ConFIG moves at equal cosines to all gradients."""

import pytest
import torch
from references.balance_reference import config

from mtl_opt.combiners import ConFIG


def draw(num_tasks, seed, spread=0.0, num_params=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, num_params or 2 * num_tasks + 3, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


def test_conflict_free_golden_values(golden):
    assert ConFIG()(golden).tolist() == pytest.approx([0.1588, 2.0706, 2.0706], abs=5e-5)


@pytest.mark.parametrize("num_params", [3, 9, 30])  # more tasks than parameters, and fewer
@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_pseudo_inverse_and_torchjd(num_params, seed):
    from torchjd.aggregation import ConFIG as Peer

    rows = draw(6, seed, spread=2, num_params=num_params)
    preference = torch.tensor([1.0, 2.0, 1.0, 0.5, 3.0, 1.0], dtype=torch.float64)
    for combiner, peer, p in [
        (ConFIG(), Peer(), torch.ones_like(preference)),
        (ConFIG(preference.tolist()), Peer(preference), preference),
    ]:
        for wanted in (peer(rows), torch.from_numpy(config(rows.numpy(), p.numpy()))):
            assert (combiner(rows) - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_authors_code(num_tasks, seed):
    from conflictfree.grad_operator import ConFIG_update

    rows = draw(num_tasks, seed, spread=1)
    wanted = ConFIG_update(rows.float(), use_least_square=False).double()  # it computes in float32 only
    assert (ConFIG()(rows) - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.parametrize("spread", [0, 3, 6])
@pytest.mark.parametrize("num_tasks", [2, 5, 20])
def test_cosines_are_equal_and_positive_at_any_scale(num_tasks, spread):
    for seed in range(5):
        rows = draw(num_tasks, seed, spread)
        lengths = rows.norm(dim=1)
        unit = ConFIG().weights(rows @ rows.T) * lengths
        cosines = (rows / lengths[:, None]) @ (unit @ (rows / lengths[:, None]))
        assert cosines.min() > 0
        assert (cosines - cosines.mean()).abs().max() < 1e-9 * cosines.mean()


def test_the_length_is_what_all_gradients_reach_along_it():
    rows = draw(4, 0, spread=1)
    update = ConFIG()(rows)
    assert float(update.norm()) == pytest.approx(float((rows @ update).sum() / update.norm()))


def test_it_is_conflict_free_only_for_independent_gradients():
    independent = all((rows @ ConFIG()(rows)).min() > 0 for rows in (draw(5, seed) for seed in range(20)))
    dependent = all((rows @ ConFIG()(rows)).min() > 0 for rows in (draw(5, seed, num_params=2) for seed in range(20)))
    assert independent
    assert not dependent


def test_a_zero_gradient_takes_no_part():
    rows = draw(3, 0)
    with_zero = torch.cat([rows[:1], torch.zeros(1, rows.shape[1], dtype=torch.float64), rows[1:]])
    torch.testing.assert_close(ConFIG()(with_zero), ConFIG()(rows))


def test_opposite_gradients_have_no_direction():
    rows = torch.tensor([[1.0, 2.0], [-3.0, -6.0]])
    assert ConFIG().weights(rows @ rows.T).tolist() == [0, 0]


def test_a_preference_goes_by_name_and_follows_the_present_tasks():
    rows = draw(3, 2)
    named = ConFIG({"qa": 1.0, "投诉": 2.0, "anger": 3.0})
    named.bind(["anger", "qa", "投诉"])
    torch.testing.assert_close(named(rows), ConFIG([3, 1, 2])(rows))
    torch.testing.assert_close(named(rows[1:], tasks=[1, 2]), ConFIG([1, 2])(rows[1:]))


@pytest.mark.parametrize("preference", [[1, 0, 1], [1, -1, 1], [1, float("nan"), 1]])
def test_conflict_free_preference_that_is_not_positive_is_refused(preference):
    with pytest.raises(ValueError, match="`preference` must be positive finite numbers"):
        ConFIG(preference)


def test_a_preference_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`preference` must be 3 numbers, one per task, got 2"):
        ConFIG([1, 2]).bind(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"`preference` must name the tasks \['a', 'b'\], got \['a', 'c'\]"):
        ConFIG({"a": 1, "c": 2}).bind(["a", "b"])
