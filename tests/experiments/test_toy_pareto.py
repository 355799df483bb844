"""The toys' closed-form gradients against autograd, their optimizer against torch's, and the Pareto sets."""

import argparse
import dataclasses

import numpy as np
import pytest
import torch

from experiments.toy_pareto import descent, measure
from experiments.toy_pareto.convex import CONVEX, convex
from experiments.toy_pareto.descent import combined, descend, two_tasks
from experiments.toy_pareto.plots import draw
from experiments.toy_pareto.two_tasks import BOTTOM, LOWER, NASH_INITS, VARIANTS, Adam, losses_and_jacobian
from experiments.toy_pareto.verdicts import reaches
from mtl_opt import COMBINERS


def literal(x, scale):
    """The two losses as they are written down in the papers' code."""
    x1, x2 = x
    low = torch.tensor(LOWER, dtype=torch.float64)
    l1 = torch.log(torch.maximum((0.5 * (-x1 - 7) - torch.tanh(-x2)).abs(), low)) + 6
    l2 = torch.log(torch.maximum((0.5 * (-x1 + 3) + torch.tanh(-x2) + 2).abs(), low)) + 6
    q1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    q2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    c1, c2 = torch.tanh(0.5 * x2).clamp(min=0), torch.tanh(-0.5 * x2).clamp(min=0)
    return torch.stack([(l1 * c1 + q1 * c2) * scale[0], (l2 * c1 + q2 * c2) * scale[1]])


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.1, 1.0)])
def test_losses_and_gradients_are_those_of_the_written_formula(scale):
    points = np.concatenate([np.random.default_rng(0).uniform(-10, 10, (40, 2)), NASH_INITS])  # (0, 0) is among them
    losses, jacobian = losses_and_jacobian(points, scale)
    for point, loss, rows in zip(points, losses, jacobian, strict=True):
        x = torch.tensor(point, requires_grad=True)
        expected = literal(x, scale)
        np.testing.assert_allclose(loss, expected.detach().numpy(), rtol=1e-12)
        for task in range(2):
            (gradient,) = torch.autograd.grad(expected[task], x, retain_graph=True)
            np.testing.assert_allclose(rows[task], gradient.numpy(), rtol=1e-10, atol=1e-14)
        assert (loss > np.array(scale) * BOTTOM).all()


def test_adam_of_many_runs_is_torchs():
    gradients = np.random.default_rng(1).normal(size=(30, 3, 2))
    points, theirs = np.ones((3, 2)), torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    ours, peer = Adam(points.shape, 1e-3), torch.optim.Adam([theirs], lr=1e-3)
    for gradient in gradients:
        ours.step(points, gradient)
        theirs.grad = torch.from_numpy(gradient)
        peer.step()
    np.testing.assert_allclose(points, theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", CONVEX)
def test_convex_gradients_are_autograds_and_the_pareto_set_is_stationary(name):
    problem = CONVEX[name]
    losses, jacobian = problem.losses_and_jacobian(problem.inits)
    x = torch.tensor(problem.inits, requires_grad=True)
    a, u = torch.tensor(problem.matrices), torch.tensor(problem.optima)
    expected = torch.einsum("rtp,tpq,rtq->rt", x[:, None] - u, a, x[:, None] - u)
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=1e-12)
    for task in range(2):
        (gradient,) = torch.autograd.grad(expected[:, task].sum(), x, retain_graph=True)
        np.testing.assert_allclose(jacobian[:, task], gradient.numpy(), rtol=1e-12)
    share = np.linspace(1e-6, 1 - 1e-6, 2001)
    _, rows = problem.losses_and_jacobian(problem.pareto_set())
    mixed = share[:, None] * rows[:, 0] + (1 - share)[:, None] * rows[:, 1]
    np.testing.assert_allclose(mixed, 0, atol=1e-8)


@pytest.mark.parametrize("name", COMBINERS)
def test_every_combiner_takes_the_first_steps_of_both_kinds_of_problem(name):
    assert np.isfinite(two_tasks(name, "nash", 5).points).all()
    assert combined(COMBINERS[name](), torch.eye(2), torch.ones(2)).shape == (2,)


@pytest.mark.parametrize("name", ["mean", "pcgrad", "upgrad", "dualproj"])
@pytest.mark.parametrize("problem", CONVEX)
def test_convex_problems_are_solved(name, problem):
    assert reaches(convex(name, problem), problem)


def test_runs_that_settle_end_early_and_leave_the_others_alone(monkeypatch):
    monkeypatch.setattr(descent, "SETTLED_STEPS", 200)

    def bowl(points):
        return (points**2).sum(1, keepdims=True).repeat(2, 1), np.stack([2 * points, 2 * points], 1)

    inits = np.array([[0.0, 0.0], [1e6, 0.0]])
    found = descend(bowl, inits, [COMBINERS["mean"](), COMBINERS["mean"]()], 300, adam_lr=1e-3)
    assert found.steps == [200, 300]
    assert found.points[0].tolist() == [0.0, 0.0]
    assert inits[1, 0] - 0.31 < found.points[1, 0] < inits[1, 0] - 0.29


def test_trajectories_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    found = {name: convex(name, "quadratic") for name in ("mean", "upgrad")}
    assert draw("quadratic", found, tmp_path / "quadratic.png")
    assert (tmp_path / "quadratic.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("quick", [True, False])
def test_a_sweep_writes_trajectories_and_judges_every_sentence(quick, tmp_path, monkeypatch):
    for name, variant in VARIANTS.items():
        monkeypatch.setitem(VARIANTS, name, dataclasses.replace(variant, steps=3))
    found = measure.measure(argparse.Namespace(quick=quick, jobs=1, output=tmp_path))
    toys = [sentence for sentence in found["verdicts"] if "setting" in sentence]
    assert len(toys) == (6 if quick else 11)
    convex_ones = [holds for sentence, holds in found["verdicts"].items() if sentence not in toys]
    assert all(convex_ones)
    assert len(convex_ones) == 4
    with np.load(tmp_path / "trajectories.npz") as saved:
        assert saved["cagrad/cagrad/0"].shape == (4, 2)
        assert ("nash/graddrop/4" in saved) == (not quick)
