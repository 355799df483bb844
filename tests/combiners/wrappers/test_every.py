"""Every computes weights once in `k` steps and keeps them until then."""

import pytest
import torch
from references.contract_inputs import jacobian, run

from mtl_opt.combiners import Every, Mean, PCGrad, Sum

NAMES = ["qa", "投诉", "anger"]


def test_weights_are_asked_for_once_in_k_steps():
    combiner, inner = Every(PCGrad(), k=3), PCGrad()
    found = run(combiner, 7)
    for step in range(7):
        rows = jacobian(seed=step // 3 * 3)
        if step % 3 == 0:
            wanted = inner.weights(rows @ rows.T)
        assert torch.equal(found[step], wanted)


def test_one_step_is_the_combiner_itself():
    assert torch.equal(run(Every(PCGrad(), k=1), 5), run(PCGrad(), 5))


def test_a_task_without_a_weight_makes_the_combiner_be_asked_at_once():
    combiner = Every(Mean(), k=10)
    combiner.bind(NAMES)
    assert combiner.weights(torch.eye(2), tasks=[0, 1]).tolist() == [0.5, 0.5]
    torch.testing.assert_close(combiner.weights(torch.eye(3)), torch.full((3,), 1 / 3))
    torch.testing.assert_close(combiner.weights(torch.eye(2), tasks=[0, 1]), torch.full((2,), 1 / 3))


def test_an_absent_task_keeps_its_weight():
    combiner = Every(Mean(), k=2)
    combiner.bind(NAMES)
    for tasks in (None, None, [0, 1]):
        combiner.weights(torch.eye(3 if tasks is None else 2), tasks=tasks)
    assert combiner.weights(torch.eye(3)).tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3])


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_number_of_steps_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match="`k` must be a whole number of at least 1, got"):
        Every(Sum(), k)
