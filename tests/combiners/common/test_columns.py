"""Blocks of columns: any number of threads does the same work and leaves torch as it was."""

import pytest
import torch
from references.contract_inputs import jacobian

from mtl_opt.combiners import GradDrop, TrimmedMean
from mtl_opt.combiners.common.columns import block_width, over_columns, refuse_non_finite_rows


@pytest.fixture(params=[1, 3])
def num_threads(request):
    """Let torch have some threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_params", [0, 1, 1023, 300_000])
def test_every_column_is_worked_on_once(num_threads, num_params):
    rows = torch.ones(5, num_params)
    seen = torch.zeros(num_params)

    def work(at):
        seen[at] += 1
        return rows[:, at].sum()

    assert over_columns(rows, lambda: work) == rows.sum()
    assert (seen == 1).all()
    assert torch.get_num_threads() == num_threads


@pytest.mark.usefixtures("num_threads")
def test_the_number_of_threads_changes_nothing():
    rows = jacobian(4, 300_000, dtype=torch.float32)
    wanted = rows.sort(0).values[1:-1].mean(0)
    torch.testing.assert_close(TrimmedMean()(rows), wanted)
    drawn = GradDrop(seed=3)(rows)
    torch.set_num_threads(2)
    assert torch.equal(drawn, GradDrop(seed=3)(rows))


def test_an_error_in_a_thread_is_raised_and_leaves_the_threads(num_threads):
    def work(_):
        raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        over_columns(torch.ones(5, 300_000), lambda: work)
    assert torch.get_num_threads() == num_threads


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_it_works_in_every_gradient_mode(mode):
    with mode():
        rows = jacobian(4, 300_000, dtype=torch.float32).requires_grad_(mode is torch.enable_grad)
        assert not TrimmedMean()(rows).requires_grad
        assert GradDrop()(rows).isfinite().all()


def test_a_block_stays_in_the_cache_whatever_the_number_of_tasks():
    assert block_width(torch.empty(8, 10**6)) * 8 * 4 <= 2**20
    assert block_width(torch.empty(40, 10**6)) >= 1024
    assert block_width(torch.empty(3, 10)) == 10


def test_the_first_row_that_is_not_finite_is_named():
    rows = torch.ones(3, 4)
    refuse_non_finite_rows(rows, ["qa", "投诉", "anger"])
    rows[1, 2] = torch.nan
    rows[2, 2] = torch.inf
    with pytest.raises(ValueError, match=r"The gradient of task `投诉` is not finite \(nan\)"):
        refuse_non_finite_rows(rows, ["qa", "投诉", "anger"])
