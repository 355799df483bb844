"""Gramian, norms, cosines and conflict rate against definitions and hand-computed numbers."""

import pytest
import torch
from torch.testing import assert_close

from mtl_opt.linalg import conflict_rate, cosines, gramian, norms


def test_gramian_holds_every_inner_product():
    jacobian = torch.tensor([[1.0, 2.0, 2.0], [0.0, -3.0, 4.0]])
    assert_close(gramian(jacobian), torch.tensor([[9.0, 2.0], [2.0, 25.0]]))


def test_norms_are_those_of_the_rows():
    jacobian = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert_close(norms(gramian(jacobian)), jacobian.norm(dim=1))


def test_norm_of_a_diagonal_rounded_below_zero_is_zero():
    assert norms(torch.tensor([[-1e-9]])).item() == 0


def test_cosines_are_those_of_torch():
    jacobian = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.cosine_similarity(jacobian[:, None], jacobian[None], dim=-1)
    assert_close(cosines(gramian(jacobian)), expected)


def test_cosines_do_not_depend_on_the_length_of_rows():
    jacobian = torch.randn(3, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    scaled = torch.tensor([[1e-9], [1.0], [1e9]], dtype=torch.float64) * jacobian
    assert_close(cosines(gramian(scaled)), cosines(gramian(jacobian)))


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_cosines_of_tiny_and_huge_gramians_are_finite(scale):
    matrix = scale * torch.tensor([[4.0, -1.0], [-1.0, 1.0]])
    assert_close(cosines(matrix), torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))


def test_cosines_stay_in_their_range_where_rounding_leads_out_of_it():
    row = torch.randn(1, 1000, generator=torch.Generator().manual_seed(3))
    result = cosines(gramian(torch.cat([row, 1.1 * row, -3 * row])))
    assert result.abs().max() <= 1


def test_cosines_with_a_zero_gradient_are_nan_and_only_those():
    result = cosines(gramian(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])))
    assert result[1].isnan().all()
    assert result[:, 1].isnan().all()
    assert_close(result[0, 2].item(), 0.5**0.5)


def test_conflict_rate_counts_pairs_with_negative_inner_product():
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [1.0, 1.0]])
    # Pairs (0, 1) and (1, 3) are negative; (0, 2) is orthogonal and no conflict.
    assert_close(conflict_rate(gramian(jacobian)).item(), 2 / 6)


def test_conflict_rate_leaves_out_pairs_with_a_zero_gradient():
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert conflict_rate(gramian(jacobian)).item() == 1


@pytest.mark.parametrize("jacobian", [torch.ones(1, 3), torch.zeros(3, 3), torch.tensor([[1.0], [0.0]])])
def test_conflict_rate_without_a_pair_is_nan(jacobian):
    assert conflict_rate(gramian(jacobian)).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_the_callers(dtype):
    matrix = gramian(torch.eye(2, dtype=dtype))
    assert {matrix.dtype, norms(matrix).dtype, cosines(matrix).dtype} == {dtype}
