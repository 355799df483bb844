"""Nash-MTL solves the bargaining problem, and FairGrad with alpha 1 the same."""

import warnings

import pytest
import torch

from mtl_opt.combiners import IMTLG, ConFIG, FairGrad, NashMTL


def draw(num_tasks, seed, spread=0.0, num_params=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, num_params or 2 * num_tasks + 3, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


def miss(gramian, weights, alpha=1.0):
    """Largest relative miss of `Gw = w^(-1/alpha)`, taken on unit rows so that no product overflows."""
    return float((weights ** (1 / alpha) * (gramian @ weights) - 1).abs().max())


def test_nash_mtl_golden_values(golden):
    assert NashMTL()(golden).tolist() == pytest.approx([0.0542, 0.7061, 0.7061], abs=5e-5)
    assert NashMTL(max_norm=None)(golden).tolist() == pytest.approx([0.0766, 0.9985, 0.9985], abs=5e-5)
    assert FairGrad()(golden).tolist() == pytest.approx([0.0766, 0.9985, 0.9985], abs=5e-5)
    assert FairGrad().weights(golden @ golden.T).tolist() == pytest.approx([0.5915, 0.4071], abs=5e-5)


@pytest.mark.parametrize("spread", [0, 3, 6])
@pytest.mark.parametrize("num_tasks", [1, 2, 5, 20, 40])
def test_the_bargaining_equation_holds_at_any_scale(num_tasks, spread):
    for seed in range(4):
        rows = draw(num_tasks, seed, spread)
        weights = NashMTL(max_norm=None).weights(rows @ rows.T)
        assert weights.min() > 0
        assert miss(rows @ rows.T, weights) < 1e-8
        torch.testing.assert_close(FairGrad().weights(rows @ rows.T), weights)


@pytest.mark.parametrize("seed", range(10))
def test_two_tasks_have_a_closed_form(seed):
    rows = draw(2, seed, spread=2)
    (a, b), (_, c) = (rows @ rows.T).tolist()
    first = (a + b * (a / c) ** 0.5) ** -0.5
    wanted = torch.tensor([first, first * (a / c) ** 0.5], dtype=torch.float64)
    torch.testing.assert_close(NashMTL(max_norm=None).weights(rows @ rows.T), wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks_share_a_direction_with_imtl_g_config_and_fairgrad(seed):
    rows = draw(2, seed, spread=3)
    units = rows / rows.norm(dim=1, keepdim=True)
    for combiner in (NashMTL(), IMTLG(), ConFIG(), FairGrad()):
        on_units = combiner.weights(rows @ rows.T) * rows.norm(dim=1)
        assert float(torch.cosine_similarity(on_units @ units, units.sum(0), dim=0)) > 1 - 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_nearly_cancel_still_have_a_solution(seed):
    rows = draw(4, seed)
    rows[3] = -rows[:3].sum(0) + 1e-3 * rows[3]
    weights = NashMTL(max_norm=None).weights(rows @ rows.T)
    assert miss(rows @ rows.T, weights) < 1e-6


def test_the_update_is_capped_and_never_stretched():
    rows = draw(5, 0)
    assert float(NashMTL(max_norm=0.1)(rows).norm()) == pytest.approx(0.1)
    assert float(NashMTL(max_norm=None)(rows).norm()) == pytest.approx(5**0.5)
    assert float(NashMTL(max_norm=100)(rows).norm()) == pytest.approx(5**0.5)


@pytest.mark.parametrize("make", [NashMTL, FairGrad])
@pytest.mark.parametrize("num_tasks", [2, 5, 40])
def test_rows_that_cancel_get_weights_that_cancel_them_and_one_warning(make, num_tasks):
    rows = draw(num_tasks, 0)
    rows[-1] = -rows[:-1].sum(0)
    combiner = make()
    with pytest.warns(RuntimeWarning, match=f"`{make.__name__}`: the gradients cancel"):
        weights = combiner.weights(rows @ rows.T)
    assert float(weights.sum()) == pytest.approx(num_tasks)
    assert weights.min() > 0
    assert (weights @ rows).norm() < 1e-6 * rows.norm()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        combiner.weights(rows @ rows.T)


def test_it_does_not_depend_on_earlier_steps():
    combiner = NashMTL()
    for seed in range(3):
        combiner(draw(4, seed, spread=3))
    assert torch.equal(combiner(draw(4, 9)), NashMTL()(draw(4, 9)))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_it_equals_torchjd_on_rows_alike_and_is_nearer_the_root_on_others(alpha):
    """TorchJD's Nash needs a conic solver, its FairGrad a general least-squares search that can stop early."""
    from torchjd.aggregation import FairGrad as Peer

    alike, apart = draw(4, 3) @ draw(4, 3).T, draw(4, 3, spread=3) @ draw(4, 3, spread=3).T
    theirs = Peer(alpha).gramian_weighting
    torch.testing.assert_close(FairGrad(alpha).weights(alike), theirs(alike), rtol=1e-6, atol=0)
    assert miss(apart, FairGrad(alpha).weights(apart), alpha) < 1e-3 * miss(apart, theirs(apart), alpha)


@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan"), float("inf")])
def test_a_cap_that_is_not_positive_is_refused(max_norm):
    with pytest.raises(ValueError, match="`max_norm` must be a number above 0, got"):
        NashMTL(max_norm=max_norm)
