"""The search behind Nash-MTL and FairGrad says how it ended."""

import numpy as np
import pytest

from mtl_opt.combiners import NashMTL
from mtl_opt.combiners.common import bargain
from mtl_opt.combiners.common.bargain import cap, fair_weights, note_outcome

PRECISION = 1e-14


def test_no_gradient_at_all_gets_no_weight():
    weights, outcome = fair_weights(np.zeros((3, 3)), 1.0, PRECISION)
    assert weights.tolist() == [0, 0, 0]
    assert outcome == "solved"


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_two_rows_of_three_that_cancel_are_found(power):
    rows = np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]])
    weights, outcome = fair_weights(rows @ rows.T, power, PRECISION)
    assert outcome == "stationary"
    assert np.abs(weights @ rows).max() < 1e-6
    assert weights.sum() == pytest.approx(3)


def test_a_search_that_does_not_converge_warns_once_and_gives_its_last_iterate(monkeypatch):
    monkeypatch.setattr(bargain, "MAX_STEPS", 1)
    rows = np.random.default_rng(0).normal(size=(5, 8))
    weights, outcome = fair_weights(rows @ rows.T, 1.0, PRECISION)
    assert outcome == "stopped"
    assert weights.min() > 0
    combiner = NashMTL()
    with pytest.warns(RuntimeWarning, match="did not converge: its last iterate is used"):
        note_outcome(combiner, outcome)
    assert combiner.take_notes() == ["`NashMTL`: the search did not converge: its last iterate is used."]
    note_outcome(combiner, outcome)  # a second warning would fail the test
    assert len(combiner.take_notes()) == 1


def test_a_cap_only_shortens():
    gramian = np.diag([4.0, 9.0])
    assert cap(np.array([1.0, 0.0]), gramian, 1.0).tolist() == [0.5, 0]
    assert cap(np.array([0.1, 0.0]), gramian, 1.0).tolist() == [0.1, 0]
    assert cap(np.array([1.0, 0.0]), gramian, None).tolist() == [1, 0]
