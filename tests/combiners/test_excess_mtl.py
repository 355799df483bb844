"""ExcessMTL shifts weight to tasks that are far from convergence."""

import pytest
import torch
from references.tracking_reference import ExcessReference

from mtl_opt.combiners import ExcessMTL


def rows_of(step, num_tasks=3):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(num_tasks, 6, generator=generator, dtype=torch.float64)


def test_excess_mtl_equals_the_recurrence_also_when_tasks_are_absent():
    combiner, reference = ExcessMTL(lr=0.3), ExcessReference(3, 0.3)
    combiner.bind(["a", "b", "c"])
    for step in range(20):
        tasks = [[0, 1, 2], [2, 0], [1]][step % 3]
        rows = rows_of(step)[tasks]
        wanted = torch.from_numpy(reference.step(rows.numpy(), tasks))
        torch.testing.assert_close(combiner(rows, tasks=tasks), wanted, rtol=1e-9, atol=1e-12)
        assert float(combiner.log_weights.exp().sum()) == pytest.approx(1)


def test_it_equals_torchjd_after_its_first_step():
    from torchjd.aggregation import ExcessMTL as Peer

    ours, theirs = ExcessMTL(lr=0.3), Peer(robust_step_size=0.3, n_warmup_steps=1)
    for step in range(10):  # its warm-up of one step is our first; it adds 1e-7 to S and E(0)
        torch.testing.assert_close(ours(rows_of(step)), theirs(rows_of(step)), rtol=1e-4, atol=1e-6)


def test_a_task_that_has_converged_loses_weight():
    combiner = ExcessMTL(lr=0.5)
    for step in range(10):
        combiner(rows_of(step, 2) * torch.tensor([[1.0], [0.01 if step else 1.0]]))
    assert combiner.log_weights[0] > combiner.log_weights[1]


def test_the_scale_of_a_tasks_gradients_does_not_matter():
    one, other = ExcessMTL(lr=0.5), ExcessMTL(lr=0.5)
    scale = torch.tensor([[1e-6], [1.0], [1e6]], dtype=torch.float64)
    for step in range(5):
        one(rows_of(step)), other(rows_of(step) * scale)
    torch.testing.assert_close(one.log_weights, other.log_weights)


def test_a_task_without_gradient_keeps_its_share_until_it_has_one():
    combiner = ExcessMTL(lr=0.5)
    rows = rows_of(0, 2)
    rows[1] = 0
    combiner(rows), combiner(rows)
    assert combiner.log_weights.isfinite().all()
    assert combiner.first_risks[1] == 0
    combiner(rows_of(1, 2))
    assert combiner.first_risks[1] > 0


def test_the_first_step_takes_the_mean():
    rows = rows_of(0)
    torch.testing.assert_close(ExcessMTL()(rows), rows.mean(0))


def test_a_rate_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="`lr` must be a number above 0, got 0"):
        ExcessMTL(lr=0)
