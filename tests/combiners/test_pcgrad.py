"""PCGrad on the Gramian is PCGrad on the gradients."""

import numpy as np
import pytest
import torch
from references.pcgrad_reference import pcgrad

from mtl_opt.combiners import PCGrad, Sum
from mtl_opt.combiners.common.solvers import draw_orders


def test_pcgrad_golden_values(golden):
    combined = PCGrad()(golden)
    assert combined.tolist() == pytest.approx([0.5848, 3.8012, 3.8012], abs=5e-5)
    assert PCGrad().weights(golden @ golden.T).tolist() == pytest.approx([2.2222, 1.5789], abs=5e-5)


@pytest.mark.parametrize("num_tasks", range(3, 9))
@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_equals_the_projection_of_explicit_gradients(num_tasks, seed, ill_scaled):
    gradients = ill_scaled(num_tasks, seed)
    orders = draw_orders(num_tasks, PCGrad(seed=seed).generator)
    wanted = pcgrad(gradients.numpy(), orders)
    found = PCGrad(seed=seed)(gradients).numpy()
    assert np.linalg.norm(found - wanted) < 1e-9 * np.linalg.norm(wanted)


def test_a_task_is_never_projected_off_itself():
    """Earlier projections can turn a gradient against its own start; with few dimensions it happens often."""
    for seed in range(50):
        gradients = torch.randn(6, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        wanted = pcgrad(gradients.numpy(), draw_orders(6, PCGrad(seed=seed).generator))
        torch.testing.assert_close(PCGrad(seed=seed)(gradients), torch.from_numpy(wanted))


@pytest.mark.parametrize("seed", range(10))
def test_two_tasks_equal_torchjd(seed):
    from torchjd.aggregation import PCGrad as Peer

    gradients = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(PCGrad()(gradients), Peer()(gradients), rtol=1e-9, atol=1e-12)


def test_two_tasks_do_not_conflict_with_the_result():
    for seed in range(20):
        gradients = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (gradients @ PCGrad()(gradients)).min() > -1e-12


def test_it_equals_sum_where_nothing_conflicts():
    gradients = torch.rand(5, 7)
    assert torch.equal(PCGrad().weights(gradients @ gradients.T), torch.ones(5))
    assert torch.equal(PCGrad()(gradients), Sum()(gradients))


def test_every_order_of_the_others_is_drawn_and_no_task_meets_itself_twice():
    combiner = PCGrad()
    orders = np.stack([draw_orders(3, combiner.generator) for _ in range(600)])
    assert (np.sort(orders, axis=2) == np.arange(3)).all()
    for task in range(3):
        others, counts = np.unique([row[row != task] for row in orders[:, task]], axis=0, return_counts=True)
        assert len(others) == 2
        assert counts.min() > 200  # 300 expected


def test_the_order_changes_the_result_from_step_to_step(ill_scaled):
    gradients = ill_scaled(5, 3)
    combiner = PCGrad()
    assert len({tuple(combiner(gradients).tolist()) for _ in range(20)}) > 1


def test_pcgrad_seeds_are_reproducible_and_different(ill_scaled):
    gradients = ill_scaled(6, 1)

    def steps(seed):
        combiner = PCGrad(seed=seed)
        return torch.stack([combiner(gradients) for _ in range(10)])

    assert torch.equal(steps(3), steps(3))
    assert not torch.equal(steps(3), steps(4))


def test_a_zero_gradient_conflicts_with_nobody():
    gradients = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])
    assert torch.allclose(PCGrad()(gradients), PCGrad()(gradients[[0, 2]]))


def test_pcgrad_opposite_gradients_cancel():
    gradients = torch.tensor([[1.0, 2.0], [-3.0, -6.0]])
    assert torch.allclose(PCGrad()(gradients), torch.zeros(2), atol=1e-6)
