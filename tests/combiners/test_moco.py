"""MoCo tracks gradients, and descends the norm of their weighted sum."""

import pytest
import torch
from references.tracking_reference import MoCoReference

from mtl_opt.combiners import MoCo


def rows_of(step, num_tasks=3):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(num_tasks, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("arguments", [(0.5, 0.1, 0.0), (1.0, 2.0, 0.3)])
def test_moco_equals_the_recurrence_also_when_tasks_are_absent(arguments):
    combiner, reference = MoCo(*arguments), MoCoReference(3, *arguments)
    combiner.bind(["a", "b", "c"])
    for step in range(20):
        tasks = [[0, 1, 2], [2, 0], [1]][step % 3]
        rows = rows_of(step)[tasks]
        wanted = torch.from_numpy(reference.step(rows.numpy(), tasks))
        torch.testing.assert_close(combiner(rows, tasks=tasks), wanted, rtol=1e-9, atol=1e-12)
        assert float(combiner.learnt.sum()) == pytest.approx(1)
        assert combiner.learnt.min() >= 0


def test_steady_gradients_lead_to_the_point_of_smallest_norm():
    rows = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)  # MGDA: weights .6, .4
    combiner = MoCo(beta=1.0, gamma=0.05)
    for _ in range(500):
        update = combiner(rows)
    assert update.tolist() == pytest.approx([0, 1, 1], abs=1e-3)


def test_large_gradients_stay_finite_and_on_the_simplex():
    combiner = MoCo()
    for step in range(5):
        assert combiner(rows_of(step) * 1e12).isfinite().all()
    assert float(combiner.learnt.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 0}, "`beta` must be above 0 and at most 1, got 0"),
        ({"beta": 1.5}, "`beta` must be above 0 and at most 1, got 1.5"),
        ({"gamma": 0}, "`gamma` must be a number above 0, got 0"),
        ({"rho": -1}, "`rho` must be a number of at least 0, got -1"),
    ],
)
def test_moco_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MoCo(**arguments)
