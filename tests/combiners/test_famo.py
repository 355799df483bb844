"""FAMO learns from the losses before and after the step."""

import copy

import pytest
import torch
from references.losses_reference import FAMOReference, famo, gradient, losses_over_scales
from torchjd.scalarization import FAMO as Peer

from mtl_opt.combiners import FAMO

LEAST = torch.tensor([0.0, -2.0, 0.5, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("decades", [0.5, 6.0])
def test_first_weights_are_the_derivatives_of_the_weighted_logarithms(decades):
    for seed in range(10):
        losses = losses_over_scales(4, decades, seed) + LEAST
        wanted = gradient(lambda leaf: famo(leaf, torch.zeros(4, dtype=torch.float64), LEAST), losses)
        found = FAMO(min_losses=LEAST.tolist()).weights(None, losses)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3, 0.5])
def test_it_equals_autograd_when_tasks_come_and_go_and_steps_go_unobserved(weight_decay):
    combiner = FAMO(lr=0.1, weight_decay=weight_decay, min_losses=LEAST.tolist())
    reference = FAMOReference(4, 0.1, weight_decay, LEAST)
    combiner.bind(["qa", "summary", "anger", "ner"])
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        tasks = [[0, 1, 2, 3], [2, 0], [1, 3, 2]][step % 3]
        before, after = (torch.rand(2, len(tasks), generator=generator, dtype=torch.float64) + 0.1) + LEAST[tasks]
        found = combiner.weights(None, before, tasks=tasks)
        torch.testing.assert_close(found, reference.weights(before, tasks), rtol=1e-6, atol=0)
        if step % 5:
            combiner.observe(after, tasks=tasks)
            reference.observe(before, after, tasks)


def test_it_equals_torchjd():
    combiner, peer = FAMO(), Peer(5).double()
    generator = torch.Generator().manual_seed(2)
    for _ in range(40):
        before, after = torch.rand(2, 5, generator=generator, dtype=torch.float64) + 0.1
        leaf = before.clone().requires_grad_()
        peer(leaf).backward()
        torch.testing.assert_close(combiner.weights(None, before), leaf.grad, rtol=1e-6, atol=0)
        peer.update(after)
        combiner.observe(after)


def test_unobserved_steps_leave_the_logits():
    combiner = FAMO()
    first = combiner.weights(None, torch.tensor([4.0, 1.0]))
    for _ in range(10):
        combiner.weights(None, torch.tensor([0.1, 7.0]))
    torch.testing.assert_close(combiner.weights(None, torch.tensor([4.0, 1.0])), first)


def test_a_step_is_observed_once():
    combiner = FAMO()
    combiner.weights(None, torch.tensor([4.0, 1.0]))
    combiner.observe(torch.tensor([2.0, 1.0]))
    state = copy.deepcopy(combiner.state_dict())
    combiner.observe(torch.tensor([1.0, 1.0]))
    assert torch.equal(combiner.state_dict()["logits"], state["logits"])


def test_a_task_that_falls_less_gains_weight():
    combiner = FAMO()
    for _ in range(20):
        weights = combiner.weights(None, torch.ones(2))
        combiner.observe(torch.tensor([0.5, 0.99]))
    assert weights[0] < 0.4
    assert weights.sum().item() == pytest.approx(1.0)


def test_logits_of_absent_tasks_stay():
    combiner = FAMO()
    combiner.bind(["qa", "summary", "anger"])
    combiner.weights(None, torch.ones(3))
    combiner.observe(torch.tensor([0.5, 0.9, 1.0]))
    before = combiner.logits.clone()
    combiner.weights(None, torch.ones(2), tasks=[2, 0])
    combiner.observe(torch.tensor([0.3, 0.9]), tasks=[2, 0])
    assert combiner.logits[1] == before[1]
    assert (combiner.logits[[0, 2]] != before[[0, 2]]).all()


def test_a_step_between_weights_and_observation_survives_a_checkpoint():
    combiner, fresh = FAMO(), FAMO()
    combiner.weights(None, torch.tensor([4.0, 1.0]))
    fresh.load_state_dict(copy.deepcopy(combiner.state_dict()))
    for one in (combiner, fresh):
        one.observe(torch.tensor([2.0, 1.0]))
    assert torch.equal(combiner.weights(None, torch.ones(2)), fresh.weights(None, torch.ones(2)))


def test_a_finished_task_takes_no_part_and_its_logit_stays():
    combiner = FAMO()
    assert combiner.weights(None, torch.tensor([1.0, 0.0, 1.0])).tolist() == [0.5, 0.0, 0.5]
    combiner.observe(torch.tensor([0.5, 3.0, 0.9]))
    assert combiner.logits[1] == 0.0
    assert (combiner.logits[[0, 2]] != 0).all()
    assert FAMO().weights(None, torch.zeros(4)).tolist() == [0.25] * 4


def test_a_task_that_finishes_in_the_step_gives_finite_logits():
    combiner = FAMO()
    combiner.weights(None, torch.tensor([1.0, 1e6]))
    combiner.observe(torch.tensor([0.0, 1e6]))
    assert combiner.weights(None, torch.tensor([0.0, 1e-30])).isfinite().all()


def test_famo_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="`lr` must be a number above 0, got 0"):
        FAMO(lr=0)
    with pytest.raises(ValueError, match="`weight_decay` must be a number of at least 0, got -1"):
        FAMO(weight_decay=-1)
    with pytest.raises(ValueError, match="`min_losses` must be finite, got"):
        FAMO(min_losses=[0.0, torch.nan])
    with pytest.raises(ValueError, match="`min_losses` must be 3 numbers, one per task, got 2"):
        FAMO(min_losses=[0.0, 1.0]).bind(["qa", "ner", "anger"])
    with pytest.raises(ValueError, match=r"`FAMO` needs `losses` \[tasks\], got None"):
        FAMO().weights(torch.eye(2))
    combiner = FAMO(min_losses={"qa": 0, "投诉": -1})
    combiner.bind(["qa", "投诉"])
    with pytest.raises(ValueError, match="loss of task `投诉` must be at least -1 for FAMO, got -2"):
        combiner.weights(None, torch.tensor([1.0, -2.0]))
    combiner.weights(None, torch.tensor([1.0, -0.5]))
    with pytest.raises(ValueError, match=r"loss of task `qa` must be at least 0 for FAMO, got -0\.5"):
        combiner.observe(torch.tensor([-0.5, 1.0]))
