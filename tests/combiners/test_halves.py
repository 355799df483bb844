"""SDMGrad and MoDo choose weights by products of two independent halves of the rows."""

import numpy as np
import pytest
import torch
from references.contract_inputs import jacobian
from references.halves_reference import MoDoReference, SDMGradReference

from mtl_opt.combiners import MGDA, Every, MoDo, NormMatched, SDMGrad, Smoothed

RATES = {"lambda_": 0.4, "lr": 1.5, "momentum": 0.6, "num_iter": 7}
PRESENT = [[0, 1, 2, 3], [2, 0], [1, 3, 0], [3], [0, 1, 2, 3]]


def two(seed, num_tasks=4, tasks=None, scale=1.0):
    """Draw the halves of a step: what they have in common, and noise of their own."""
    common, noise = jacobian(num_tasks, 6, seed=99), [jacobian(num_tasks, 6, seed=2 * seed + i) for i in (0, 1)]
    halves = scale * torch.stack([common + 0.5 * n for n in noise])
    return halves if tasks is None else halves[:, tasks]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_sdmgrad_equals_the_literal_recurrence_over_steps_with_absent_tasks(scale):
    combiner, reference = SDMGrad(**RATES), SDMGradReference(4, **RATES)
    combiner.bind(["qa", "投诉", "anger", "ner"])
    for seed, tasks in enumerate(PRESENT):
        halves = two(seed, tasks=tasks, scale=scale)
        wanted = reference.step(*halves.numpy(), tasks)
        np.testing.assert_allclose(combiner(halves, tasks=tasks).numpy(), wanted, rtol=1e-7, atol=1e-9 * scale)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_modo_equals_the_literal_recurrence_over_steps_with_absent_tasks(scale):
    combiner, reference = MoDo(gamma=0.05, rho=0.2), MoDoReference(4, 0.05, 0.2)
    combiner.bind(["qa", "投诉", "anger", "ner"])
    for seed, tasks in enumerate(PRESENT):
        halves = two(seed, tasks=tasks, scale=scale)
        wanted = reference.step(*halves.numpy(), tasks)
        np.testing.assert_allclose(combiner(halves, tasks=tasks).numpy(), wanted, rtol=1e-7, atol=1e-9 * scale)


@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_the_weights_equal_torchjd_over_steps(num_tasks):
    from torchjd.aggregation import MoDoWeighting, SDMGradWeighting

    pairs = [(SDMGrad(), SDMGradWeighting()), (MoDo(), MoDoWeighting()), (SDMGrad(lr=0.3), SDMGradWeighting(lr=0.3))]
    for combiner, peer in pairs:
        for seed in range(6):
            first, second = two(seed, num_tasks, scale=3.0)
            products = first @ second.T
            # The peer adds 1e-8 to the squared scale.
            torch.testing.assert_close(combiner.weights(products), peer(products), rtol=1e-5, atol=1e-6)


def test_the_matrix_is_not_made_symmetric():
    first, second = two(1)
    for make in (lambda: SDMGrad(lr=0.3, num_iter=3), lambda: MoDo(gamma=0.05)):
        assert not torch.allclose(make().weights(first @ second.T), make().weights(second @ first.T))


def test_the_weights_apply_to_the_mean_of_the_halves():
    halves = two(2)
    for make in (SDMGrad, MoDo):
        weights = make().weights(halves[0] @ halves[1].T)
        torch.testing.assert_close(make()(halves), weights @ halves.mean(0))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_sdmgrad_without_pull_comes_to_rest_at_mgda_at_any_scale_of_the_gradients(scale):
    rows = scale * (jacobian(3, 8) + 0.3)
    wanted = MGDA().weights(rows @ rows.T)
    found = SDMGrad(lambda_=0.0, lr=0.2, num_iter=3000).weights(rows @ rows.T)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_a_strong_pull_gives_the_mean():
    assert SDMGrad(lambda_=1e9).weights(torch.diag(torch.tensor([1.0, 9.0]))).tolist() == pytest.approx([0.5, 0.5])


def test_without_a_positive_product_the_weights_stay_and_the_event_says_so():
    combiner = SDMGrad()
    weights = combiner.weights(torch.tensor([[-1.0, 0.3], [0.2, -2.0]]))
    assert weights.tolist() == pytest.approx([0.5, 0.5])
    assert combiner.take_notes() == [
        "`SDMGrad`: no task has a positive product of its two halves: the weights stay as they are."
    ]


def test_wrappers_pass_the_two_samples_on():
    halves = two(0)
    for wrap in (lambda c: Every(c, 1), lambda c: Smoothed(c, 0.0)):
        combiner = wrap(MoDo())
        assert combiner.requires == "halves"
        assert torch.equal(combiner(halves), MoDo()(halves))
    with pytest.raises(ValueError, match="whose input shows norms; the two samples of `MoDo` do not"):
        NormMatched(MoDo())


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (SDMGrad, {"lambda_": -1}, "`lambda_` must be a number of at least 0, got -1"),
        (SDMGrad, {"lr": 0}, "`lr` must be a number above 0, got 0"),
        (SDMGrad, {"momentum": 1.0}, "`momentum` must be at least 0 and below 1, got 1.0"),
        (SDMGrad, {"num_iter": 0}, "`num_iter` must be a whole number of at least 1, got 0"),
        (MoDo, {"gamma": -0.1}, "`gamma` must be a number above 0, got -0.1"),
        (MoDo, {"rho": float("nan")}, "`rho` must be a number of at least 0, got nan"),
    ],
)
def test_sdmgrad_and_modo_arguments_out_of_range_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize("make", [SDMGrad, MoDo])
def test_one_jacobian_is_refused(make):
    with pytest.raises(ValueError, match=r"`jacobian` must be \[2, tasks, params\].*got shape \(3, 7\)"):
        make()(jacobian())
