"""GradVac on cosines is GradVac on the gradients, step after step."""

import numpy as np
import pytest
import torch
from references.contract_inputs import jacobian
from references.gradvac_reference import gradvac

from mtl_opt.combiners import GradVac, PCGrad, Sum
from mtl_opt.combiners.common.solvers import draw_orders


def test_gradvac_golden_values(golden):
    assert GradVac()(golden).tolist() == pytest.approx([0.5848, 3.8012, 3.8012], abs=5e-5)
    assert GradVac().weights(golden @ golden.T).tolist() == pytest.approx([2.2222, 1.5789], abs=5e-5)


@pytest.mark.parametrize(("target", "beta"), [(0.0, 0.01), (0.0, 0.5), (0.4, 0.1), (-0.3, 1.0), (0.9, 0.0)])
@pytest.mark.parametrize("num_tasks", range(2, 8))
def test_it_equals_the_correction_of_explicit_gradients(num_tasks, target, beta):
    combiner, orders_of = GradVac(target, beta, seed=4), GradVac(seed=4)
    targets = np.full((num_tasks, num_tasks), target)
    scale = torch.logspace(-2, 2, num_tasks, dtype=torch.float64)[:, None]
    for step in range(5):
        gradients = jacobian(num_tasks, 6, seed=step) * scale
        wanted, targets = gradvac(gradients.numpy(), targets, beta, draw_orders(num_tasks, orders_of.generator))
        found = combiner(gradients).numpy()
        assert np.linalg.norm(found - wanted) < 1e-9 * np.linalg.norm(wanted)
        np.testing.assert_allclose(combiner.targets.numpy(), targets, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [0.01, 0.5])
def test_two_tasks_equal_torchjd_over_steps(beta):
    from torchjd.aggregation import GradVac as Peer

    combiner, peer = GradVac(beta=beta), Peer(beta=beta, eps=0.0)
    for step in range(20):
        gradients = jacobian(2, seed=step)
        torch.testing.assert_close(combiner(gradients), peer(gradients), rtol=1e-9, atol=1e-12)


def test_a_fixed_target_of_zero_is_pcgrad():
    one, other = GradVac(beta=0.0, seed=3), PCGrad(seed=3)
    for step in range(5):
        gradients = jacobian(6, seed=step)
        torch.testing.assert_close(one(gradients), other(gradients), rtol=1e-10, atol=1e-12)


def test_a_corrected_pair_has_the_cosine_aimed_at():
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    weights = GradVac(target=0.5, beta=0.0).weights(gradients @ gradients.T)
    # Each gradient plus its own share of the other one: 1 + what the other task added.
    first = gradients[0] + (weights[1] - 1) * gradients[1]
    assert torch.cosine_similarity(first, gradients[1], dim=0).item() == pytest.approx(0.5)


def test_it_equals_sum_where_every_cosine_is_above_its_target():
    gradients = torch.rand(5, 7)
    assert torch.equal(GradVac()(gradients), Sum()(gradients))


def test_the_average_follows_the_cosine():
    combiner = GradVac(beta=0.1)
    gradients = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    seen = []
    for _ in range(3):
        combiner(gradients)
        seen.append(combiner.targets[0, 1].item())
    assert seen == pytest.approx([0.06, 0.114, 0.1626])


def test_orders_are_drawn_anew_and_reproducible():
    gradients = jacobian(6, 4)

    def steps(seed):
        combiner = GradVac(target=0.5, beta=0.0, seed=seed)
        return torch.stack([combiner(gradients) for _ in range(5)])

    assert torch.equal(steps(3), steps(3))
    assert not torch.equal(steps(3), steps(4))
    assert len({tuple(row.tolist()) for row in steps(3)}) > 1


def test_a_zero_gradient_is_no_target_and_keeps_its_averages():
    gradients = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    combiner = GradVac(target=0.3, beta=0.5)
    torch.testing.assert_close(combiner(gradients), GradVac(target=0.3)(gradients[[0, 2]]))
    assert (combiner.targets[1] == 0.3).all()
    assert (combiner.targets[:, 1] == 0.3).all()
    assert combiner.targets[0, 2] != 0.3


def test_a_pair_with_an_absent_task_keeps_its_average():
    combiner = GradVac(beta=0.5)
    combiner.bind(["qa", "投诉", "anger"])
    combiner(jacobian(2), tasks=[0, 2])
    assert (combiner.targets[1] == 0).all()
    assert (combiner.targets[:, 1] == 0).all()
    assert combiner.targets[0, 2] != 0


def test_parallel_gradients_drive_the_target_to_one_and_the_weights_stay_finite():
    combiner = GradVac(beta=1.0)
    row = jacobian(1)
    for _ in range(3):
        assert combiner(torch.cat([row, 2 * row])).isfinite().all()
    assert combiner(jacobian(2, seed=5)).isfinite().all()


def test_gradvac_opposite_gradients_cancel():
    gradients = torch.tensor([[1.0, 2.0], [-3.0, -6.0]])
    assert torch.allclose(GradVac()(gradients), torch.zeros(2), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 1.0}, "`target` must be between -1 and 1, got 1.0"),
        ({"target": -1.0}, "`target` must be between -1 and 1, got -1.0"),
        ({"beta": 1.5}, r"`beta` must be in \[0, 1\], got 1.5"),
        ({"beta": float("nan")}, r"`beta` must be in \[0, 1\], got nan"),
    ],
)
def test_gradvac_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradVac(**arguments)
