"""DB-MTL balances log losses and gradient lengths."""

import pytest
import torch
from references.tracking_reference import DBReference

from mtl_opt.combiners import DBMTL


def draw(step, num_tasks=3):
    generator = torch.Generator().manual_seed(step)
    rows = torch.randn(num_tasks, 6, generator=generator, dtype=torch.float64)
    return rows, torch.rand(num_tasks, generator=generator, dtype=torch.float64) + 0.1


@pytest.mark.parametrize(("beta", "sigma"), [(0.9, 0.0), (0.5, 0.5), (0.0, 0.0)])
def test_db_mtl_equals_the_recurrence_also_when_tasks_are_absent(beta, sigma):
    combiner, reference = DBMTL(beta, sigma), DBReference(beta, sigma)
    combiner.bind(["a", "b", "c"])
    for step in range(15):
        tasks = [[0, 1, 2], [2, 0], [1]][step % 3]
        rows, losses = draw(step)
        wanted = torch.from_numpy(reference.step(rows[tasks].numpy(), losses[tasks].numpy(), tasks))
        torch.testing.assert_close(combiner(rows[tasks], losses[tasks], tasks=tasks), wanted, rtol=1e-9, atol=1e-12)


def test_without_an_average_a_gramian_is_enough():
    rows, losses = draw(0)
    combiner = DBMTL(beta=0)
    assert combiner.requires == "gramian"
    torch.testing.assert_close(combiner.weights(rows @ rows.T, losses) @ rows, DBMTL(beta=0)(rows, losses))
    assert not [name for name in combiner.state_dict() if "tracked" in name]
    assert DBMTL().requires == DBMTL.requires == "jacobian"


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_all_parts_of_the_update_are_as_long_as_the_longest(beta):
    rows = torch.diag(torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64))
    update = DBMTL(beta)(rows, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(update, update[2].expand(3))


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_scale_of_a_loss_does_not_matter(beta):
    rows, losses = draw(1)
    scale = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    found = DBMTL(beta)(rows * scale[:, None], losses * scale)
    torch.testing.assert_close(found, DBMTL(beta)(rows, losses), rtol=1e-3, atol=0)  # 1e-8 beside a loss of 1e-4


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_a_zero_gradient_or_loss_gives_finite_updates(beta):
    rows, losses = draw(2)
    rows[0], losses[1] = 0, 0
    assert DBMTL(beta)(rows, losses).isfinite().all()
    assert DBMTL(beta)(torch.zeros(3, 4), losses).tolist() == [0] * 4


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_db_mtl_losses_are_needed_and_must_not_be_negative(beta):
    combiner = DBMTL(beta)
    combiner.bind(["qa", "投诉"])
    with pytest.raises(ValueError, match=r"`DBMTL` needs `losses` \[tasks\], got None"):
        combiner(torch.eye(2))
    with pytest.raises(ValueError, match="loss of task `投诉` must be at least 0 for DBMTL, got -1"):
        combiner(torch.eye(2), torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("arguments", [{"beta": 1.0}, {"beta": -0.1}, {"sigma": -1.0}, {"sigma": float("inf")}])
def test_db_mtl_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=r"`(beta|sigma)` must be .*at least 0"):
        DBMTL(**arguments)
