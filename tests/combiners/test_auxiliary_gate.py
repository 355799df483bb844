"""An auxiliary task counts only while it points the way of the main tasks."""

import pytest
import torch

from mtl_opt.combiners import AuxiliaryGate, Mean, Sum


def draw(num_tasks, seed, spread=0.0):
    rows = torch.randn(num_tasks, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows * torch.logspace(-spread, spread, num_tasks, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("main", [[0], [2], [1, 3]])
@pytest.mark.parametrize("spread", [0, 3])
def test_it_equals_gates_on_explicit_gradients(main, spread):
    for seed in range(10):
        rows = draw(6, seed, spread)
        total = rows[main].sum(0)
        wanted = total.clone()
        for i in set(range(6)) - set(main):
            if torch.cosine_similarity(rows[i], total, dim=0) > 0:
                wanted += rows[i]
        torch.testing.assert_close(AuxiliaryGate(main)(rows), wanted, rtol=1e-9, atol=1e-12)


def test_the_update_never_points_against_the_main_tasks():
    for seed in range(50):
        rows = draw(5, seed, spread=2)
        main = rows[:2].sum(0)
        assert AuxiliaryGate(main=[0, 1])(rows) @ main >= main @ main * (1 - 1e-12)


def test_orthogonal_and_zero_auxiliary_gradients_do_not_count():
    gramian = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    assert AuxiliaryGate().weights(gramian).tolist() == [1, 0, 0]


def test_it_equals_sum_while_every_gate_is_open():
    rows = torch.rand(4, 6)
    assert torch.equal(AuxiliaryGate()(rows), Sum()(rows))


def test_a_main_gradient_of_zero_closes_all_gates():
    rows = draw(3, 0)
    rows[0] = 0
    assert AuxiliaryGate(main=[0]).weights(rows @ rows.T).tolist() == [1, 0, 0]


def test_without_a_main_task_a_step_takes_the_mean():
    combiner = AuxiliaryGate(main=["投诉"])
    combiner.bind(["qa", "anger", "投诉"])
    assert torch.equal(combiner.weights(torch.eye(2), tasks=[0, 1]), Mean().weights(torch.eye(2)))


def test_a_main_task_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"`main` must name tasks of \['qa'\] or their indices, got 'anger'"):
        AuxiliaryGate(main="anger").bind(["qa"])
