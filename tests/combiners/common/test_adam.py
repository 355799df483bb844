"""The private Adam is Adam, task by task."""

import pytest
import torch

from mtl_opt.combiners.common.adam import TaskAdam


def test_it_equals_torch_and_skips_absent_tasks():
    values, adam = torch.ones(3, dtype=torch.float64), TaskAdam(3, lr=0.1)
    peers = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(3)]
    optimizer = torch.optim.Adam(peers, lr=0.1)
    for step in range(30):
        present = [[0, 1, 2], [2, 0], [1]][step % 3]
        gradient = torch.randn(len(present), dtype=torch.float64)
        adam.step(values, gradient, present)
        optimizer.zero_grad()
        for task, value in zip(present, gradient, strict=True):
            peers[task].grad = value.clone()
        optimizer.step()
    torch.testing.assert_close(values, torch.stack(peers).detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1.0, 1e150])
def test_the_step_does_not_depend_on_the_size_of_the_gradient(scale):
    values, adam = torch.ones(2, dtype=torch.float64), TaskAdam(2, lr=0.1)
    adam.step(values, torch.tensor([1.0, -3.0], dtype=torch.float64) * scale, [0, 1])
    torch.testing.assert_close(values, torch.tensor([0.9, 1.1], dtype=torch.float64))


@pytest.mark.parametrize("flush", [False, True])
def test_a_zero_gradient_moves_nothing(flush):
    values, adam = torch.ones(2, dtype=torch.float64), TaskAdam(2, lr=0.1)
    torch.set_flush_denormal(flush)
    try:
        adam.step(values, torch.zeros(2, dtype=torch.float64), [0, 1])
    finally:
        torch.set_flush_denormal(False)
    assert values.tolist() == [1, 1]
