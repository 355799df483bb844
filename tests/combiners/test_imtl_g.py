"""IMTL-G makes the same progress along every unit gradient."""

import pytest
import torch
from references.balance_reference import imtl_g

from mtl_opt.combiners import IMTLG


def draw(num_tasks, seed, spread=0.0, num_params=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, num_params or 2 * num_tasks + 3, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


def projections(rows, update):
    return rows @ update / rows.norm(dim=1)


def test_imtl_g_golden_values(golden):
    assert IMTLG()(golden).tolist() == pytest.approx([0.0767, 1, 1], abs=5e-5)
    assert IMTLG().weights(golden @ golden.T).tolist() == pytest.approx([0.5923, 0.4077], abs=5e-5)


@pytest.mark.parametrize("num_tasks", [2, 3, 6, 12])
@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_closed_form_and_torchjd(num_tasks, seed):
    from torchjd.aggregation import IMTLG as Peer

    rows = draw(num_tasks, seed, spread=1)
    found = IMTLG()(rows)
    for wanted in (torch.from_numpy(imtl_g(rows.numpy())), Peer()(rows)):
        assert (found - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("spread", [0, 3, 6])
@pytest.mark.parametrize("num_tasks", [2, 5, 20])
def test_projections_are_equal_and_weights_add_up_to_one_at_any_scale(num_tasks, spread):
    for seed in range(5):
        rows = draw(num_tasks, seed, spread)
        weights = IMTLG().weights(rows @ rows.T)
        unit = weights * rows.norm(dim=1)  # the update is tiny beside the largest row: judge on unit rows
        found = (rows @ rows.T / rows.norm(dim=1) / rows.norm(dim=1)[:, None]) @ unit
        assert (found - found.mean()).abs().max() < 1e-9 * found.mean().abs()
        assert float(weights.sum()) == pytest.approx(1)


def test_parallel_gradients_share_the_progress():
    rows = torch.tensor([[1.0, 1.0], [3.0, 3.0]], dtype=torch.float64)
    update = IMTLG()(rows)
    torch.testing.assert_close(projections(rows, update), projections(rows, update).mean().expand(2))
    assert projections(rows, update).min() > 0


def test_gradients_whose_units_cancel_get_no_update():
    rows = torch.tensor([[1.0, 2.0], [-3.0, -6.0]], dtype=torch.float64)
    weights = IMTLG().weights(rows @ rows.T)
    assert weights.tolist() == pytest.approx([0.75, 0.25])
    assert (weights @ rows).abs().max() < 1e-12


def test_a_zero_gradient_changes_nothing():
    rows = draw(3, 0)
    with_zero = torch.cat([rows, torch.zeros(1, rows.shape[1], dtype=torch.float64)])
    torch.testing.assert_close(IMTLG()(with_zero), IMTLG()(rows))
    assert IMTLG().weights(with_zero @ with_zero.T)[3] == 0


def test_raw_weights_that_add_up_to_zero_skip_the_step():
    c = 0.85
    cosines = torch.tensor([[1.0, c, c], [c, 1.0, 0.5], [c, 0.5, 1.0]], dtype=torch.float64)
    raw = torch.linalg.solve(cosines, torch.ones(3, dtype=torch.float64))  # the first is negative
    length = float(-raw[0] / (raw[1] + raw[2]))  # of the first gradient that brings the sum to 0
    assert length > 0
    scale = torch.tensor([length, 1.0, 1.0], dtype=torch.float64)
    assert IMTLG().weights(cosines * scale * scale[:, None]).tolist() == [0, 0, 0]


def test_the_scale_of_all_gradients_changes_no_weight():
    rows = draw(4, 1)
    for scale in (1e-7, 1e7):
        torch.testing.assert_close(
            IMTLG().weights(scale**2 * rows @ rows.T), IMTLG().weights(rows @ rows.T), rtol=1e-8, atol=0
        )
    assert IMTLG().weights(torch.zeros(3, 3)).tolist() == [0, 0, 0]
