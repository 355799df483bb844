"""GradNorm brings tasks to a common pace."""

import pytest
import torch
from references.gradnorm_reference import GradNormReference

from mtl_opt.combiners import GradNorm
from mtl_opt.combiners.gradnorm import MIN_WEIGHT


def rows_and_losses(step, num_tasks=3):
    generator = torch.Generator().manual_seed(step)
    rows = torch.randn(num_tasks, 6, generator=generator, dtype=torch.float64)
    losses = torch.rand(num_tasks, generator=generator, dtype=torch.float64) + 0.5
    return rows * torch.tensor([1.0, 10.0, 0.1])[:num_tasks, None], losses


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
@pytest.mark.parametrize("lr", [0.025, 0.4])  # at 0.4 weights reach their floor
def test_it_equals_autograd_on_the_weights(alpha, lr):
    combiner, reference = GradNorm(alpha=alpha, lr=lr), GradNormReference(3, alpha, lr, MIN_WEIGHT)
    combiner.bind(["qa", "summary", "anger"])
    for step in range(25):
        tasks = [[0, 1, 2], [2, 0], [1, 2]][step % 3]
        rows, losses = rows_and_losses(step)
        found = combiner.weights(rows[tasks] @ rows[tasks].T, losses[tasks], tasks=tasks)
        torch.testing.assert_close(found, reference.step(rows[tasks], losses[tasks], tasks), rtol=1e-6, atol=0)


def test_the_weight_of_a_lagging_task_rises():
    combiner, gramian = GradNorm(), torch.eye(2)
    combiner.weights(gramian, torch.tensor([1.0, 5.0]))
    for _ in range(5):
        combiner.weights(gramian, torch.tensor([0.2, 4.5]))
    weights = combiner.weights(gramian, torch.tensor([0.2, 4.5]))
    assert weights[1] > 1 > weights[0]


def test_the_weight_of_a_task_with_a_large_gradient_falls_until_norms_are_equal():
    combiner, gramian = GradNorm(alpha=0.0, lr=0.01), torch.diag(torch.tensor([16.0, 1.0]))
    for _ in range(400):
        weights = combiner.weights(gramian, torch.ones(2))
    assert (weights * torch.tensor([4.0, 1.0])).tolist() == pytest.approx([1.6, 1.6], rel=0.1)


def test_weights_add_up_to_the_number_of_tasks_also_when_some_are_absent():
    combiner = GradNorm(lr=0.3)
    combiner.bind(["qa", "summary", "anger"])
    for step in range(20):
        tasks = [[0, 1, 2], [2, 0], [1]][step % 3]
        rows, losses = rows_and_losses(step)
        combiner.weights(rows[tasks] @ rows[tasks].T, losses[tasks], tasks=tasks)
        assert float(combiner.learnt.sum()) == pytest.approx(3)
        assert combiner.learnt.min() > 0


def test_the_first_loss_of_a_task_is_that_of_its_first_step():
    combiner = GradNorm()
    combiner.bind(["qa", "summary"])
    combiner.weights(torch.eye(1), torch.tensor([3.0]), tasks=[0])
    assert combiner.first_losses[0] == 3
    assert combiner.first_losses[1].isnan()
    combiner.weights(torch.eye(2), torch.tensor([2.0, 7.0]))
    assert combiner.first_losses.tolist() == [3, 7]


def test_a_first_loss_of_zero_gives_finite_weights():
    combiner = GradNorm()
    for losses in ([0.0, 1.0], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0]):
        assert combiner.weights(torch.eye(2), torch.tensor(losses)).isfinite().all()


def test_it_asks_for_the_layers_it_was_given():
    assert GradNorm().over == "last"
    assert GradNorm(layers="all").over == "all"
    assert GradNorm(layers=["model.layers.0"]).over == ["model.layers.0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1}, "`alpha` must be a number of at least 0, got -1"),
        ({"alpha": float("nan")}, "`alpha` must be a number of at least 0, got nan"),
        ({"lr": 0}, "`lr` must be a number above 0, got 0"),
        ({"layers": "first"}, "`layers` must be 'last', 'all' or a list of layer names, got 'first'"),
    ],
)
def test_gradnorm_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradNorm(**arguments)


def test_gradnorm_losses_are_needed_and_must_not_be_negative():
    combiner = GradNorm()
    combiner.bind(["qa", "投诉"])
    with pytest.raises(ValueError, match=r"`GradNorm` needs `losses` \[tasks\], got None"):
        combiner.weights(torch.eye(2))
    with pytest.raises(ValueError, match=r"loss of task `投诉` must be at least 0 for GradNorm, got -1"):
        combiner.weights(torch.eye(2), torch.tensor([1.0, -1.0]))
    assert combiner.first_losses.isnan().all()
