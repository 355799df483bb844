"""Aligned-MTL gives all principal components of the gradients one scale."""

import pytest
import torch
from references.balance_reference import aligned

from mtl_opt.combiners import AlignedMTL, Mean

MODES = ["min", "median", "rmse"]


def draw(num_tasks, seed, spread=0.0, num_params=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, num_params or 2 * num_tasks + 3, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


def test_aligned_mtl_golden_values(golden):
    assert AlignedMTL()(golden).tolist() == pytest.approx([0.2133, 0.9673, 0.9673], abs=5e-5)
    assert AlignedMTL().weights(golden @ golden.T).tolist() == pytest.approx([0.5591, 0.4083], abs=5e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_tasks", [1, 2, 5, 12])
@pytest.mark.parametrize("spread", [0, 1])
def test_it_equals_the_singular_value_decomposition_and_torchjd(mode, num_tasks, spread):
    from torchjd.aggregation import AlignedMTL as Peer

    for seed in range(3):
        rows = draw(num_tasks, seed, spread)
        found = AlignedMTL(mode)(rows)
        for wanted in (torch.from_numpy(aligned(rows.numpy(), mode)), Peer(scale_mode=mode)(rows)):
            assert (found - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("mode", MODES)
def test_dependent_rows_equal_torchjd(mode):
    from torchjd.aggregation import AlignedMTL as Peer

    for rows in (draw(6, 0, num_params=3), draw(4, 1)[[0, 1, 2, 0]]):
        torch.testing.assert_close(AlignedMTL(mode)(rows), Peer(scale_mode=mode)(rows), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_tasks", [2, 3, 6, 9])
@pytest.mark.parametrize("spread", [2, 4, 6])
def test_norms_far_apart_equal_60_digits(num_tasks, spread):
    mpmath = pytest.importorskip("mpmath")
    rows = draw(num_tasks, num_tasks, spread)[torch.randperm(num_tasks)]
    with mpmath.workdps(60):
        exact = mpmath.matrix(rows.tolist())
        values, vectors = mpmath.eigsy(exact * exact.T)
        along = vectors.T * mpmath.matrix([1] * num_tasks)
        for i in range(num_tasks):
            along[i] *= mpmath.sqrt(min(values) / values[i]) / num_tasks
        wanted = torch.tensor([float(x) for x in exact.T * (vectors * along)], dtype=torch.float64)
    assert (AlignedMTL()(rows) - wanted).norm() < 1e-9 * wanted.norm()


@pytest.mark.parametrize("mode", MODES)
def test_forty_tasks_with_norms_far_apart_satisfy_the_conditions_of_the_method(mode):
    rows = draw(40, 0, spread=6)[torch.randperm(40)]
    lengths = rows.norm(dim=1)
    inverse = torch.linalg.inv((rows @ rows.T) / lengths / lengths[:, None]) / lengths / lengths[:, None]
    values = torch.linalg.svdvals(torch.diag(lengths / lengths.max()) @ (rows / lengths[:, None])) * lengths.max()
    common = {
        "min": 1 / torch.linalg.eigvalsh(inverse)[-1],  # precise, where the smallest of the Gramian is lost
        "median": values.square()[20],
        "rmse": values.square().mean(),
    }[mode]
    weights = AlignedMTL(mode).weights(rows @ rows.T)
    # The aligned gradients are orthogonal and equally long, so their mean has the squared length σ / m ...
    assert float((weights @ rows).square().sum()) == pytest.approx(float(common) / 40, rel=1e-9)
    # ... and a change of unit changes the aligned gradients by the same factor.
    again = AlignedMTL(mode).weights((3 * rows) @ (3 * rows).T)
    torch.testing.assert_close(again, weights, rtol=1e-8, atol=0)


def test_orthogonal_gradients_of_one_length_give_the_mean():
    rows = 3 * torch.linalg.qr(torch.randn(7, 4, dtype=torch.float64))[0].T
    torch.testing.assert_close(AlignedMTL()(rows), Mean()(rows))


def test_all_gradients_zero_give_the_mean():
    assert AlignedMTL().weights(torch.zeros(4, 4)).tolist() == [0.25] * 4


def test_a_zero_gradient_gets_weight_zero():
    rows = draw(3, 0)
    rows[1] = 0
    assert AlignedMTL().weights(rows @ rows.T)[1] == 0


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="`scale_mode` must be one of min, median, rmse, got 'max'"):
        AlignedMTL("max")
