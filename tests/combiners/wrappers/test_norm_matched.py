"""NormMatched gives every update the norm of the mean gradient."""

import pytest
import torch
from references.contract_inputs import LOSSES, jacobian

from mtl_opt.combiners import COMBINERS, PCD, MoCo, NormMatched


@pytest.mark.parametrize("name", [n for n in COMBINERS if n not in {"gradnorm", "db_mtl"}])
def test_every_update_is_as_long_as_the_mean_gradient_and_keeps_its_direction(name):
    if COMBINERS[name].requires in {"halves", "window"}:
        return
    rows = jacobian(4, 9, seed=5)
    update, plain = NormMatched(COMBINERS[name]())(rows, LOSSES[:4]), COMBINERS[name]()(rows, LOSSES[:4])
    torch.testing.assert_close(update.norm(), rows.mean(0).norm())
    torch.testing.assert_close(torch.cosine_similarity(update, plain, dim=0), torch.tensor(1.0, dtype=torch.float64))


def test_an_update_of_zero_stays_zero():
    rows = torch.tensor([[1.0, 1.0], [-2.0, -2.0]], dtype=torch.float64)
    assert NormMatched(PCD(tau=0))(rows).tolist() == [0, 0]
    cancelled = NormMatched(COMBINERS["imtl_g"]())(rows)  # weights that cancel the rows up to rounding
    assert cancelled.abs().max() < 1e-12


def test_a_combiner_without_weights_is_matched_in_forward():
    rows = jacobian()
    assert float(NormMatched(MoCo())(rows).norm()) == pytest.approx(float(rows.mean(0).norm()))
    assert NormMatched(MoCo())(torch.zeros(2, 3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`MoCo` has no weights"):
        NormMatched(MoCo()).weights(rows @ rows.T)
