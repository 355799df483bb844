"""What a combiner is given is checked once, and copied without its graph."""

import pytest
import torch

from mtl_opt.combiners.inputs import checked_gramian, checked_losses, detached_halves, detached_rows


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_leave_the_graph_in_float32_at_least(dtype):
    rows = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    halves = torch.ones(2, 2, 3, dtype=dtype, requires_grad=True)
    for found in (detached_rows(rows), detached_halves(halves)):
        assert not found.requires_grad
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_rows_that_need_no_copy_are_not_copied():
    halves = torch.ones(2, 2, 3)
    assert detached_halves(halves).data_ptr() == halves.data_ptr()
    assert detached_rows(halves[1]).data_ptr() == halves[1].data_ptr()


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 4), (1, 2, 4), (2, 2, 2, 2)])
def test_what_is_not_two_matrices_is_refused(shape):
    with pytest.raises(
        ValueError, match=r"`jacobian` must be \[2, tasks, params\], the gradients of two independent h"
    ):
        detached_halves(torch.ones(shape))


def test_only_two_samples_may_be_asymmetric_or_negative_on_the_diagonal():
    matrix = torch.tensor([[-1.0, 2.0], [0.5, 3.0]])
    assert checked_gramian(matrix, ["a", "b"], two_samples=True).tolist() == matrix.tolist()
    for wrong in (matrix, matrix.abs(), torch.diag(torch.tensor([-1.0, 1.0]))):
        with pytest.raises(ValueError, match="must be symmetric with a diagonal of squared norms"):
            checked_gramian(wrong, ["a", "b"])


def test_a_product_that_is_not_finite_is_refused_for_two_samples_too():
    with pytest.raises(ValueError, match="non-finite inner product between finite gradients"):
        checked_gramian(torch.tensor([[1.0, torch.inf], [0.0, 1.0]]), ["a", "b"], two_samples=True)
    with pytest.raises(ValueError, match="gradient of task `投诉` is not finite"):
        checked_gramian(torch.diag(torch.tensor([1.0, torch.nan])), ["a", "投诉"], two_samples=True)


def test_losses_are_one_per_task_and_finite():
    assert checked_losses(torch.tensor([1, 2]), ["a", "b"]).dtype == torch.float64
    with pytest.raises(ValueError, match=r"`losses` must be \[2\], one per task, got shape \(3,\)"):
        checked_losses(torch.ones(3), ["a", "b"])
    with pytest.raises(ValueError, match="loss of task `b` is not finite"):
        checked_losses(torch.tensor([1.0, torch.inf]), ["a", "b"])
