"""Rows are scaled by weight and share before a combiner sees them: how hard a task pulls."""

import pytest
import torch
from references.jacobian_reference import Rows, token_losses
from torch import nn
from torch.nn import functional as F

from mtl_opt import PCGrad, Sum
from mtl_opt.batch import IGNORE_INDEX, TaskBatch
from mtl_opt.gradients import TaskGradients

ENGINES = ("one_pass", "per_task", "two_pass")
TASKS = ["qa", "摘要", "anger"]
X = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([0, 1, 0, 1, 1, 0, 0])
COUNTS = torch.tensor([8.0, 30.0, 0.0], dtype=torch.float64)  # label tokens: of the four rows of qa, the three of 摘要


def losses_of(model, x=X, ids=IDS):
    squares = torch.tanh(model(x)).square().mean(1)
    size = torch.bincount(ids, minlength=3).clamp(min=1)
    return torch.zeros(3, dtype=x.dtype).index_add(0, ids, squares) / size


def rows_of(engine, batches=((X, IDS, COUNTS),), combiner=None, **arguments):
    """Return scales, and what the combiner wrote, of one step on a linear layer."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4).double()
    grads = TaskGradients(model, TASKS, engine, **arguments)
    for x, ids, counts in batches:
        with grads.rows(ids):
            grads.backward(losses_of(model, x, ids), counts)
    grads.combine(combiner or Sum())
    return grads, torch.cat([p.grad.flatten() for p in model.parameters()])


def mean_gradients():
    torch.manual_seed(0)
    model = nn.Linear(3, 4).double()
    found = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in losses_of(model)[:2]]
    return torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in found])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("arguments", "scales"),
    [
        ({}, (1, 1)),
        ({"loss_reduction": "rows"}, (4 / 3.5, 3 / 3.5)),
        ({"loss_reduction": "tokens"}, (8 / 19, 30 / 19)),
        ({"task_weights": {"摘要": 0.25}}, (1, 0.25)),
        ({"loss_reduction": "rows", "task_weights": {"qa": 2, "anger": 9}}, (2 * 4 / 3.5, 3 / 3.5)),
        ({"loss_reduction": "tokens", "task_weights": {"qa": 0}}, (0, 30 / 19)),
    ],
)
def test_every_engine_scales_the_row_before_the_combiner(engine, arguments, scales):
    grads, found = rows_of(engine, **arguments)
    wanted = torch.tensor([*scales, 0.0], dtype=torch.float64)
    torch.testing.assert_close(grads.scales, wanted)
    scaled = wanted[:2, None] * mean_gradients()
    torch.testing.assert_close(found, scaled.sum(0))
    torch.testing.assert_close(grads.gramian()[:2, :2], scaled @ scaled.T)
    assert torch.equal(grads.losses()[:2], losses_of(grads_model())[:2].detach())  # those stay means
    _, projected = rows_of(engine, combiner=PCGrad(), **arguments)
    torch.testing.assert_close(projected, PCGrad()(scaled))


def grads_model():
    torch.manual_seed(0)
    return nn.Linear(3, 4).double()


@pytest.mark.parametrize("engine", ["one_pass", "per_task"])
@pytest.mark.parametrize("reduction", ["rows", "tokens", "task"])
def test_micro_batches_have_the_scale_of_the_whole_step(engine, reduction):
    parts = [(X[i], IDS[i], torch.bincount(IDS[i], minlength=3).double()) for i in (slice(0, 1), slice(1, 5), [5, 6])]
    whole, wanted = rows_of(engine, [(X, IDS, torch.bincount(IDS, minlength=3).double())], loss_reduction=reduction)
    pieces, found = rows_of(engine, parts, loss_reduction=reduction)
    torch.testing.assert_close(pieces.scales, whole.scales)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_sum_under_tokens_is_the_token_mean_of_a_plain_trainer_times_the_tasks(make_llama, engine):
    model = make_llama().double()
    labels = torch.randint(0, 61, (5, 12), generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([0, 0, 1, 1, 1])
    masked = labels.clone()
    masked[:2, :9] = masked[3, :4] = IGNORE_INDEX  # short answers of one task, long ones of the other
    model(input_ids=labels, labels=masked).loss.backward()
    wanted = {name: 2 * p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    grads = TaskGradients(model, ["qa", "anger"], engine, loss_reduction="tokens")
    with grads.rows(ids):
        grads.backward(*token_losses(model, Rows(labels, torch.ones_like(labels), masked, ids), 2))
    grads.combine(Sum())
    found, plain = (torch.cat([part.flatten() for part in parts]) for parts in zip(
        *((p.grad, wanted[name]) for name, p in model.named_parameters() if name in wanted), strict=True
    ))  # fmt: skip
    assert (found - plain).norm() <= 1e-6 * plain.norm()  # transformers takes its loss in float32


def test_packed_rows_must_say_how_many_they_are_and_a_batch_does():
    model = nn.Linear(3, 4).double()
    ids = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    grads = TaskGradients(model, ["qa", "anger"], loss_reduction="rows")
    with pytest.raises(ValueError, match="give `num_rows`"), grads.rows(ids):
        pass
    positions = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    batch = TaskBatch(ids, mask, ids, ids, positions)
    assert batch.num_rows(2).tolist() == [1, 3]  # the last token is padding
    assert TaskBatch(ids, mask, ids, torch.tensor([1, 1])).num_rows(3).tolist() == [0, 2, 0]
    with grads.rows(ids, batch.num_rows(2)):
        per_token = torch.tanh(model(torch.randn(2, 4, 3, dtype=torch.float64))).square().mean(-1)
        losses = torch.stack([per_token[ids == t].mean() for t in range(2)])
        grads.backward(losses, torch.tensor([2.0, 6.0]))
    assert grads.scales.tolist() == [0.5, 1.5]


def test_halves_are_scaled_like_their_task():
    model = nn.Linear(3, 4).double()
    products = []
    for weights in ({}, {"qa": 4.0, "摘要": 0.125}):
        grads = TaskGradients(model, TASKS, halves=True, loss_reduction="rows", task_weights=weights)
        with grads.rows(IDS):
            owners = grads.owners
            squares = torch.tanh(model(X)).square().mean(1)
            size = torch.bincount(owners, minlength=6)
            means = torch.zeros(6, dtype=X.dtype).index_add(0, owners, squares) / size.clamp(min=1)
            grads.backward(means, size.double())
        products.append(grads.two_sample_gramian())
        grads.zero()
    factors = torch.tensor([4.0, 0.125, 1.0], dtype=torch.float64)
    torch.testing.assert_close(products[1], products[0] * torch.outer(factors, factors))


def test_a_private_head_keeps_its_own_gradient_unless_it_follows_the_weights():
    found = []
    for policy, weight in (("task", 1.0), ("task", 0.5), ("weighted", 0.5)):
        torch.manual_seed(0)
        model = nn.ModuleDict({"trunk": nn.Linear(3, 4), "head": nn.Linear(4, 1)}).double()
        grads = TaskGradients(
            model, ["qa"], "per_task", private={"qa": list(model["head"].parameters())}, head_policy=policy,
            task_weights={"qa": weight},
        )  # fmt: skip
        with grads.rows(torch.zeros(7, dtype=torch.long)):
            grads.backward(model["head"](torch.tanh(model["trunk"](X))).square().mean().reshape(1))
        grads.combine(Sum())
        found.append([p.grad.clone() for p in model.parameters()])
    plain, halved, following = found
    for name, a, b, c in zip(("trunk",) * 2 + ("head",) * 2, plain, halved, following, strict=True):
        torch.testing.assert_close(b, a * (0.5 if name == "trunk" else 1))
        torch.testing.assert_close(c, a * 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_reduction": "mean"}, "`loss_reduction` must be one of rows, tokens, task, got 'mean'"),
        ({"task_weights": {"qa": -1}}, "`task_weights` must be finite, at least 0 and not all 0"),
        ({"task_weights": dict.fromkeys(TASKS, 0)}, "not all 0"),
        ({"task_weights": {"quality": 1}}, "`task_weights` names unknown tasks"),
    ],
)
def test_what_is_not_allowed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TaskGradients(nn.Linear(3, 4), TASKS, **arguments)


def test_losses_of_the_same_rows_are_alike_under_rows():
    model = nn.Linear(3, 2).double()
    grads = TaskGradients(model, ["qa", "anger"], "per_task", loss_reduction="rows")
    grads.backward(F.softplus(model(X)).mean(0))
    assert grads.scales.tolist() == [1, 1]
