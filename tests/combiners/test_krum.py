"""Krum keeps the gradients with the closest neighbours."""

import pytest
import torch
from references.contract_inputs import jacobian
from references.projection_reference import krum

from mtl_opt.combiners import Krum, Mean


@pytest.mark.parametrize(
    ("num_tasks", "byzantine", "selected"), [(3, 0, 1), (5, 1, 1), (5, 2, 3), (8, 2, 4), (8, 5, 8)]
)
@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_scores_of_explicit_gradients_and_torchjd(num_tasks, byzantine, selected, seed):
    from torchjd.aggregation import Krum as Peer

    gradients = jacobian(num_tasks, seed=seed)
    found = Krum(byzantine, selected)(gradients)
    torch.testing.assert_close(found, torch.from_numpy(krum(gradients.numpy(), byzantine, selected)))
    if num_tasks - byzantine > 3 or selected == num_tasks:  # with one neighbour each, two tasks tie
        torch.testing.assert_close(found, Peer(n_byzantine=byzantine, n_selected=selected)(gradients))


def test_an_outlier_of_any_size_is_left_out():
    gradients = torch.ones(6, 4) + 0.1 * jacobian(6, 4, dtype=torch.float32)
    gradients[3] = 1e12
    weights = Krum(num_byzantine=1, num_selected=3).weights(gradients @ gradients.T)
    assert weights[3] == 0
    assert weights.sum().item() == pytest.approx(1)
    assert sorted(set(weights.tolist())) == pytest.approx([0, 1 / 3])


def test_ties_go_to_the_first_task():
    gradients = torch.tensor([[9.0, 9.0], [1.0, 0.1], [1.0, 0.0]])
    assert Krum().weights(gradients @ gradients.T).tolist() == [0, 1, 0]


@pytest.mark.parametrize(("num_tasks", "byzantine", "selected"), [(2, 0, 1), (1, 0, 1), (4, 2, 1), (4, 0, 5)])
def test_krum_too_few_tasks_take_the_mean(num_tasks, byzantine, selected):
    gradients = jacobian(num_tasks)
    torch.testing.assert_close(Krum(byzantine, selected)(gradients), Mean()(gradients))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_byzantine": -1}, "`num_byzantine` must be a whole number of at least 0, got -1"),
        ({"num_selected": 0}, "`num_selected` must be a whole number of at least 1, got 0"),
        ({"num_selected": 1.5}, "`num_selected` must be a whole number of at least 1, got 1.5"),
    ],
)
def test_krum_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Krum(**arguments)
