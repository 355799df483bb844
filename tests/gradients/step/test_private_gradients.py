"""Private parameters get their own task's gradient, and nothing of the others."""

import pytest
import torch
from torch import nn

from mtl_opt.gradients import TaskGradients

ENGINES = ("one_pass", "per_task")
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([0, 1, 0, 1, 1, 0])


class TwoHeads(nn.Module):
    """A shared trunk and a head for each task."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.qa = nn.Linear(4, 1)
        self.anger = nn.Linear(4, 1)

    def task_parameters(self):
        return {"qa": list(self.qa.parameters()), "anger": list(self.anger.parameters())}

    def losses(self, x, ids):
        hidden = torch.tanh(self.trunk(x))
        heads = (self.qa, self.anger)
        parts = [head(hidden[ids == t]).square() for t, head in enumerate(heads)]
        return torch.stack([part.sum() / max(len(part), 1) for part in parts])


def run(model, engine, batches=((X, IDS),), weights=(0.5, 3.0), **arguments):
    grads = TaskGradients(model, ["qa", "anger"], engine, **arguments)
    for x, ids in batches:
        with grads.rows(ids):
            grads.backward(model.losses(x, ids), torch.bincount(ids, minlength=2))
    grads.write(torch.tensor(weights))
    return grads


def own_gradients(model, task, x=X, ids=IDS):
    return torch.autograd.grad(model.losses(x, ids)[task], model.task_parameters()[("qa", "anger")[task]])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("policy", "factors"), [("task", (1.0, 1.0)), ("weighted", (0.5, 3.0))])
def test_heads_get_the_gradient_of_their_own_task(engine, policy, factors):
    model = TwoHeads()
    wanted = [own_gradients(model, task) for task in range(2)]
    grads = run(model, engine, head_policy=policy)
    assert list(grads.buffer.parameters) == ["trunk.weight", "trunk.bias"]
    for name, gradients, factor in zip(("qa", "anger"), wanted, factors, strict=True):
        for parameter, gradient in zip(model.task_parameters()[name], gradients, strict=True):
            torch.testing.assert_close(parameter.grad, factor * gradient)


@pytest.mark.parametrize("engine", ENGINES)
def test_micro_batches_are_divided_by_the_count_of_their_own_task(engine):
    model = TwoHeads()
    wanted = [own_gradients(model, task) for task in range(2)]
    run(model, engine, batches=[(X[:1], IDS[:1]), (X[1:], IDS[1:])])
    for name, gradients in zip(("qa", "anger"), wanted, strict=True):
        for parameter, gradient in zip(model.task_parameters()[name], gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("policy", ["task", "weighted"])
def test_the_head_of_an_absent_task_keeps_no_gradient(engine, policy):
    model = TwoHeads()
    run(model, engine, batches=[(X, torch.zeros(6, dtype=torch.long))], head_policy=policy)
    assert all(p.grad is None for p in model.anger.parameters())
    assert all(p.grad is not None for p in model.qa.parameters())


def test_private_can_be_named_by_hand_and_frozen_members_are_left_out():
    model = TwoHeads()
    model.qa.bias.requires_grad_(False)
    grads = run(model, "per_task", private={"qa": list(model.qa.parameters())})
    assert set(grads.buffer.parameters) == {"trunk.weight", "trunk.bias", "anger.weight", "anger.bias"}
    assert model.qa.weight.grad is not None
    assert model.qa.bias.grad is None


class TwoBiases(TwoHeads):
    """Private parameters whose gradients autograd hands out as one tensor, or as an expanded number."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.free = (nn.Parameter(torch.zeros(4)) for _ in range(3))

    def task_parameters(self):
        return {"qa": [self.left, self.right, self.free], "anger": list(self.anger.parameters())}

    def losses(self, x, ids):
        hidden = torch.tanh(self.trunk(x)) + (self.left + self.right)
        qa = self.qa(hidden[ids == 0]).square().mean() + self.free.sum()
        return torch.stack([qa, self.anger(hidden[ids == 1].detach()).square().mean()])


def test_gradients_that_share_memory_are_divided_once():
    model = TwoBiases()
    wanted = [g.clone() for g in own_gradients(model, 0)]
    run(model, "per_task", head_policy="weighted")
    for parameter, gradient in zip(model.task_parameters()["qa"], wanted, strict=True):
        torch.testing.assert_close(parameter.grad, 0.5 * gradient)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match=r"unknown tasks \['summary'\]; tasks are \['qa', 'anger'\]"):
        TaskGradients(TwoHeads(), ["qa", "anger"], private={"summary": []})


def test_a_parameter_of_two_tasks_is_refused():
    model = TwoHeads()
    both = list(model.qa.parameters())
    with pytest.raises(ValueError, match="`private` gives a parameter to `qa` and to `anger`"):
        TaskGradients(model, ["qa", "anger"], private={"qa": both, "anger": both})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_penalty_is_added_after_combining_and_after_dividing(engine):
    model = TwoHeads()
    plain = [p.grad.clone() for p in parameters_after(model, engine)]
    model = TwoHeads()
    grads = TaskGradients(model, ["qa", "anger"], engine, head_policy="weighted")
    with grads.rows(IDS):
        grads.penalty(model.trunk.weight.square().sum())
        grads.backward(model.losses(X, IDS), torch.bincount(IDS, minlength=2))
        grads.penalty(model.trunk.weight.sum() + model.qa.weight.square().sum())
    grads.write(torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(model.trunk.weight.grad, plain[0] + 2 * model.trunk.weight + 1)
    torch.testing.assert_close(model.trunk.bias.grad, plain[1])
    torch.testing.assert_close(model.qa.weight.grad, plain[2] + 2 * model.qa.weight)
    torch.testing.assert_close(model.qa.bias.grad, plain[3])


def parameters_after(model, engine):
    torch.manual_seed(0)
    model.__init__()
    run(model, engine, head_policy="weighted")
    torch.manual_seed(0)
    return list(model.parameters())


def test_the_penalty_of_an_absent_task_reaches_its_head():
    model = TwoHeads()
    grads = TaskGradients(model, ["qa", "anger"])
    ids = torch.zeros(6, dtype=torch.long)
    with grads.rows(ids):
        grads.backward(model.losses(X, ids))
    grads.penalty(model.anger.weight.sum())
    grads.write(torch.ones(2))
    assert torch.equal(model.anger.weight.grad, torch.ones(1, 4))
    assert model.anger.bias.grad is None


def test_a_penalty_after_the_gradient_was_written_is_refused():
    model = TwoHeads()
    grads = run(model, "per_task")
    with pytest.raises(ValueError, match="already written"):
        grads.penalty(model.trunk.weight.square().sum())
    grads.zero()
    grads.penalty(model.trunk.weight.square().sum())


def test_a_penalty_that_depends_on_no_parameter_is_refused():
    model = TwoHeads()
    grads = TaskGradients(model, ["qa", "anger"])
    with pytest.raises(ValueError, match="`term` must be a scalar that depends on a trainable parameter"):
        grads.penalty(torch.ones(()))
    with pytest.raises(ValueError, match=r"`term` must be a scalar .* shape \(4, 3\)"):
        grads.penalty(model.trunk.weight * 2)


def test_a_penalty_that_depends_on_rows_is_refused_by_one_pass():
    model = TwoHeads()
    grads = TaskGradients(model, ["qa", "anger"], "one_pass")
    with grads.rows(IDS), pytest.raises(ValueError, match="`term` depends on rows of the batch"):
        grads.penalty(model.trunk(X).square().mean())


def test_verify_refuses_a_loss_that_reaches_the_head_of_another_task():
    class Crossed(TwoHeads):
        def losses(self, x, ids):
            return super().losses(x, ids) + self.qa.weight.sum()

    model = Crossed()
    grads = TaskGradients(model, ["qa", "anger"], "one_pass", verify=True)
    with grads.rows(IDS), pytest.raises(ValueError, match="`anger` depends on private parameters of task `qa`"):
        grads.backward(model.losses(X, IDS))
    assert all(p.grad is None for p in model.parameters())


def test_a_penalty_is_forgotten_with_its_step():
    model = TwoHeads()
    grads = TaskGradients(model, ["qa", "anger"], "per_task")
    grads.penalty(model.trunk.weight.sum() + model.qa.weight.sum())
    grads.zero()
    wanted = [own_gradients(model, 0)[0]]
    grads.backward(model.losses(X, IDS))
    grads.write(torch.zeros(2))
    assert model.trunk.weight.grad.count_nonzero() == 0
    torch.testing.assert_close(model.qa.weight.grad, wanted[0])


def test_writing_twice_does_not_scale_twice():
    model = TwoHeads()
    wanted = own_gradients(model, 1)[0]
    grads = run(model, "one_pass", head_policy="weighted")
    grads.write(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(model.anger.weight.grad, 2 * wanted)


def test_the_weighted_policy_needs_weights():
    model = TwoHeads()
    grads = run(model, "per_task", head_policy="weighted")
    with pytest.raises(ValueError, match="`head_policy='weighted'` needs a combiner with one weight per task"):
        grads.write_vector(torch.zeros_like(grads.buffer.combined))


def test_clipping_is_apart_for_shared_and_private_parameters():
    model = TwoHeads()
    grads = run(model, "per_task", weights=(100.0, 100.0))
    before = [p.grad.clone() for p in model.qa.parameters()]
    size = torch.cat([model.trunk.weight.grad.flatten(), model.trunk.bias.grad]).norm()
    assert grads.clip(0) == pytest.approx(float(size))
    assert grads.clip(1e-3) == pytest.approx(float(size))
    after = torch.cat([model.trunk.weight.grad.flatten(), model.trunk.bias.grad]).norm()
    assert float(after) == pytest.approx(1e-3, rel=1e-3)
    own = torch.cat([p.grad.flatten() for p in model.qa.parameters()])
    torch.testing.assert_close(
        own, torch.cat([g.flatten() for g in before]) * own.norm() / torch.cat([g.flatten() for g in before]).norm()
    )
    assert float(own.norm()) == pytest.approx(1e-3, rel=1e-2)
