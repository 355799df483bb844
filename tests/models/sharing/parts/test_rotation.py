"""Rotations: orthogonal, the identity at the start, their objective written out."""

import pytest
import torch
from models.sharing_cases import TASKS
from references.sharing_reference import rotation, rotograd_objective

from mtl_opt.batch import task_rows
from mtl_opt.models.sharing.parts.rotation import Rotations


def make(block=4, scale=False, dim=8):
    torch.manual_seed(0)
    rotations = Rotations(dim, TASKS, block, scale)
    for angles in rotations.angles:
        torch.nn.init.normal_(angles)
    return rotations


@pytest.mark.parametrize("block", [2, 4, 8])
@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0, 2, 2)])
def test_a_row_is_turned_by_the_matrix_of_its_task(ids, block):
    rotations, z = make(block), torch.randn(6, 5, 8)
    with task_rows(torch.tensor(ids)):
        found = rotations(z)
    for row, task in enumerate(ids):
        matrix = rotations.output_matrix_of(task)
        torch.testing.assert_close(matrix, rotation(rotations.angles[task].detach(), block))
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(8), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[row], z[row] @ matrix.T)
    with task_rows(torch.tensor([ids])):  # tokens of packed rows
        torch.testing.assert_close(rotations(z[None, :, 0]), found[None, :, 0])


def test_training_begins_with_the_pretrained_model():
    rotations = Rotations(8, TASKS, 4)
    z = torch.randn(3, 8)
    with task_rows(torch.tensor([0, 2, 1])):
        assert torch.equal(rotations(z), z)


def test_the_objective_and_its_gradient_are_those_written_out():
    rotations, sums = make(), torch.randn(3, 8)
    for tasks in ((0, 1, 2), (0, 2)):
        found = rotations.misalignment(sums, tasks)
        angles = [rotations.angles[task] for task in tasks]
        wanted = rotograd_objective(angles, [sums[task] for task in tasks], 4)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(torch.autograd.grad(found, angles), torch.autograd.grad(wanted, angles))


def test_norms_are_brought_together_in_the_next_step():
    rotations = make(scale=True)
    sums, tokens = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 2.0, 0.0])
    sums = torch.nn.functional.pad(sums, (0, 6))
    rotations.balance(sums, tokens)  # norms 5 and 1, both at their first
    torch.testing.assert_close(rotations.first_norms, torch.tensor([5.0, 1.0, 0.0]))
    torch.testing.assert_close(rotations.factors, torch.tensor([3 / 5, 3.0, 1.0]))
    rotations.balance(sums / 5, tokens)  # norms 1 and 0.2, both a fifth of their first
    torch.testing.assert_close(rotations.factors, torch.tensor([0.6, 3.0, 1.0]))
    z = torch.randn(3, 2, 8, requires_grad=True)
    with task_rows(torch.tensor([1, 0, 2])):
        rotations(z).sum().backward()
    plain = torch.stack([torch.ones(2, 8) @ rotations.output_matrix_of(t) * f for t, f in ((1, 3.0), (0, 0.6), (2, 1))])
    torch.testing.assert_close(z.grad, plain)
