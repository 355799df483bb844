"""What each method promises of its update, as a table that is exact: a new method must be placed in it.

What all of them promise (shape, dtype, finiteness, state, absent tasks, refusals) is in `test_contract*.py`.
"""

import warnings

import pytest
import torch
from references.contract_inputs import jacobian
from references.promises import NAMES, PROMISES, conflict, update

from mtl_opt.combiners import COMBINERS, ConFIG, FairGrad, GradVac, NashMTL, PCGrad, UPGrad

TABLE = {
    "sum": "linear homogeneous moves any_order mean_if_agreed",
    "mean": "linear homogeneous moves any_order mean_if_agreed",
    "weighted": "linear homogeneous moves any_order mean_if_agreed",
    "rlw": "linear homogeneous moves",
    "geometric": "linear homogeneous moves any_order",
    "log_sum": "linear homogeneous moves any_order",
    "uncertainty": "linear homogeneous moves any_order",
    "uncertainty_soft": "linear homogeneous moves any_order",
    "dwa": "linear homogeneous moves any_order",
    "imtl_l": "linear homogeneous moves any_order",
    "stch": "linear homogeneous moves any_order",
    "famo": "linear homogeneous moves any_order",
    "coba": "linear homogeneous moves any_order",
    "cosmos": "linear homogeneous moves any_order",
    "pbi": "linear homogeneous moves any_order",
    "learning_speed": "linear homogeneous moves any_order",
    "gradnorm": "homogeneous moves any_order",
    "pcgrad": "linear homogeneous moves as_pcgrad mean_if_agreed",
    "gradvac": "linear homogeneous moves as_pcgrad mean_if_agreed",
    "mgda": "no_conflict independent homogeneous rests moves any_order",
    "cagrad": "no_conflict independent homogeneous rests moves any_order",
    "imtl_g": "homogeneous moves any_order bisector",
    "nash_mtl": "no_conflict independent homogeneous rests moves any_order bisector",
    "aligned_mtl": "homogeneous moves any_order",
    "upgrad": "no_conflict independent linear homogeneous rests moves any_order as_pcgrad mean_if_agreed",
    "dualproj": "no_conflict independent homogeneous rests moves any_order mean_if_agreed",
    "fairgrad": "no_conflict independent homogeneous rests moves any_order bisector",
    "config": "independent linear homogeneous moves any_order bisector",
    "krum": "homogeneous moves any_order",
    "pcd": "linear homogeneous moves any_order",
    "priority": "linear homogeneous moves any_order mean_if_agreed",
    "auxiliary": "linear homogeneous moves any_order mean_if_agreed",
    "sdmgrad": "homogeneous moves any_order",
    "modo": "moves any_order",
    "graddrop": "homogeneous moves any_order mean_if_agreed",
    "trimmed_mean": "homogeneous moves any_order",
    "excess_mtl": "linear homogeneous moves any_order",
    "moco": "moves any_order",
    "db_mtl": "homogeneous moves any_order",
}
"""The promises that each method keeps on every input of `references/promises.py`; it breaks the others."""


def test_every_method_is_in_the_table_and_every_promise_is_kept_by_some():
    assert set(TABLE) == set(COMBINERS)
    assert {promise for kept in TABLE.values() for promise in kept.split()} == set(PROMISES)


@pytest.mark.parametrize("name", TABLE)
def test_a_method_keeps_what_it_promises_and_the_table_leaves_nothing_out(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # stationary gradients are said once
        kept = {promise for promise, holds in PROMISES.items() if holds(name)}
    assert kept == set(TABLE[name].split())


@pytest.mark.parametrize("name", TABLE)
def test_the_same_rows_give_the_same_update_twice(name):
    rows = jacobian(4, 9)
    assert torch.equal(update(name, rows), update(name, rows))


@pytest.mark.parametrize("seed", range(20))
def test_two_tasks_identities_hold_with_their_lengths(seed):
    rows = jacobian(2, 5, seed=seed) * torch.tensor([[1.0], [30.0]])
    surgery = PCGrad()(rows)
    for same in (GradVac(target=0.0)(rows), UPGrad(preference=[1.0, 1.0])(rows)):
        torch.testing.assert_close(same, surgery, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(NashMTL(max_norm=None)(rows), FairGrad(alpha=1.0)(rows), rtol=1e-9, atol=0)
    unit = rows / rows.norm(dim=1)[:, None]
    assert float(NashMTL(max_norm=None)(rows).norm()) == pytest.approx(2**0.5)
    assert float(ConFIG()(rows).norm()) == pytest.approx(
        float(rows.norm(dim=1) @ unit @ unit.sum(0) / unit.sum(0).norm())
    )


def test_a_conflict_is_measured_as_a_share_of_the_lengths():
    rows = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert conflict(rows, torch.tensor([-2.0, 5.0], dtype=torch.float64)) == 1.0
    assert conflict(rows, rows.sum(0)) < 0
    assert len(set(NAMES)) == 6
