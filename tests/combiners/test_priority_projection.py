"""Named tasks are never projected, and no other task slows them."""

import pytest
import torch
from references.balance_reference import one_sided

from mtl_opt.combiners import Mean, PriorityProjection, Sum


def draw(num_tasks, seed, spread=0.0, num_params=None):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, num_params or num_tasks + 2, generator=generator, dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


def test_one_main_task_is_the_projection_of_pcgrad_on_one_side(golden):
    other = golden[1] - (golden[0] @ golden[1]) / (golden[0] @ golden[0]) * golden[0]
    torch.testing.assert_close(PriorityProjection(main=[0])(golden), golden[0] + other)


@pytest.mark.parametrize("main", [[0], [2], [0, 3], [1, 2, 4]])
@pytest.mark.parametrize("seed", range(4))
def test_priority_projection_equals_the_projection_of_explicit_gradients(main, seed):
    rows = draw(6, seed, spread=1)
    wanted = torch.from_numpy(one_sided(rows.numpy(), main))
    assert (PriorityProjection(main)(rows) - wanted).norm() < 1e-6 * wanted.norm()


@pytest.mark.parametrize("spread", [0, 3, 6])
def test_other_tasks_never_slow_a_main_task_at_any_scale(spread):
    for seed in range(10):
        rows = draw(8, seed, spread)
        main = [0, 3, 7]
        added = PriorityProjection(main).weights(rows @ rows.T) @ rows - rows[main].sum(0)
        assert (rows[main] @ added / rows[main].norm(dim=1)).min() > -1e-9 * rows.norm(dim=1).max()


def test_only_weights_of_main_tasks_change():
    rows = draw(5, 1)
    weights = PriorityProjection(main=[1, 3]).weights(rows @ rows.T)
    assert weights[[0, 2, 4]].tolist() == [1, 1, 1]
    assert weights[[1, 3]].min() >= 1


def test_it_equals_sum_where_nothing_conflicts_and_where_all_are_main():
    rows = torch.rand(4, 6)
    assert torch.equal(PriorityProjection()(rows), Sum()(rows))
    rows = draw(4, 0)
    torch.testing.assert_close(PriorityProjection(main=[0, 1, 2, 3])(rows), Sum()(rows))


def test_parallel_main_tasks_count_once():
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(PriorityProjection(main=[0, 1])(rows), torch.tensor([3.0, 1.0], dtype=torch.float64))


def test_a_zero_main_gradient_constrains_nothing():
    rows = draw(3, 0)
    rows[0] = 0
    torch.testing.assert_close(PriorityProjection(main=[0])(rows), rows.sum(0))


def test_absent_main_tasks_constrain_nothing_and_without_any_the_step_takes_the_mean():
    rows = draw(3, 2)
    combiner, other = PriorityProjection(main=["qa", "投诉"]), PriorityProjection(main=["qa"])
    for one in (combiner, other):
        one.bind(["qa", "投诉", "anger"])
    torch.testing.assert_close(combiner(rows[[0, 2]], tasks=[0, 2]), other(rows[[0, 2]], tasks=[0, 2]))
    torch.testing.assert_close(combiner(rows[[2]], tasks=[2]), Mean()(rows[[2]]))


@pytest.mark.parametrize("main", [["summary"], [3], [0, "qa"], [], [True]])
def test_main_tasks_that_are_none_are_refused(main):
    with pytest.raises(ValueError, match=r"`main` must (name tasks of|be at least one task)"):
        PriorityProjection(main).bind(["qa", "投诉", "anger"])
