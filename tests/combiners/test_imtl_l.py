"""IMTL-L learns a scale per task."""

import pytest
import torch
from references.losses_reference import IMTLLReference
from torchjd.scalarization import IMTLL as Peer

from mtl_opt.combiners import IMTLL, LogSum


def test_it_equals_autograd_on_the_scales():
    combiner, reference = IMTLL(lr=0.1), IMTLLReference(3, lr=0.1)
    combiner.bind(["qa", "summary", "anger"])
    for step in range(40):
        tasks = [[0, 1, 2], [2, 0], [1, 2]][step % 3]
        losses = (torch.rand(3, dtype=torch.float64) + 0.1)[tasks] * torch.tensor([0.1, 1.0, 10.0])[tasks]
        found = combiner.weights(None, losses, tasks=tasks)
        torch.testing.assert_close(found, reference.step(losses, tasks), rtol=1e-6, atol=0)


def test_it_equals_torchjd_with_the_scales_in_an_optimizer():
    combiner, peer = IMTLL(lr=0.025), Peer(4).double()
    optimizer = torch.optim.Adam(peer.parameters(), lr=0.025)
    for _ in range(30):
        losses = torch.rand(4, dtype=torch.float64) * 3 + 0.1
        leaf = losses.clone().requires_grad_()
        optimizer.zero_grad()
        peer(leaf).backward()
        optimizer.step()
        torch.testing.assert_close(combiner.weights(None, losses), leaf.grad, rtol=1e-6, atol=0)


def test_weights_come_to_rest_at_the_inverse_losses():
    combiner, losses = IMTLL(lr=0.02), torch.tensor([4.0, 1.0, 0.1], dtype=torch.float64)
    for _ in range(3000):
        weights = combiner.weights(None, losses)
    torch.testing.assert_close(weights, LogSum().weights(None, losses), rtol=1e-3, atol=0)


def test_the_scale_of_a_finished_task_stays():
    combiner = IMTLL()
    combiner.weights(None, torch.tensor([4.0, 4.0]))
    first = combiner.weights(None, torch.tensor([4.0, 0.0]))
    for _ in range(20):
        weights = combiner.weights(None, torch.tensor([4.0, 0.0]))
    assert weights[1] == first[1] < 1
    assert weights[0] < first[0]
    assert IMTLL().weights(None, torch.zeros(2)).tolist() == [1.0, 1.0]


def test_imtl_l_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="`lr` must be a number above 0, got 0"):
        IMTLL(lr=0)
    with pytest.raises(ValueError, match="loss of task `1` must be at least 0 for IMTLL, got -1"):
        IMTLL().weights(None, torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"`IMTLL` needs `losses` \[tasks\], got None"):
        IMTLL().weights(torch.eye(2))
