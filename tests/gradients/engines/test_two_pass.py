"""Engine `two_pass`: the numbers of `per_task` without a row in memory."""

import copy

import pytest
import torch
from gradients.engines.test_parity_models import make_gpt2
from references.jacobian_reference import random_rows, token_losses
from torch import nn

from mtl_opt import PCGrad
from mtl_opt.combiners import GradNorm, Scoped
from mtl_opt.gradients import TaskGradients
from mtl_opt.gradients.rows import scratch_rows
from mtl_opt.models import enable_checkpointing

TASKS = ("qa", "summary", "投诉")
IDS = (2, 0, 1, 1, 0, 2, 2)


def error(found, wanted) -> float:
    return float((found - wanted).norm() / wanted.norm())


def gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def step(model, engine, rows, losses_of=token_losses, **options) -> TaskGradients:
    """Take the rows of one batch, with the same dropout masks every time."""
    grads = TaskGradients(model, TASKS, engine, **options)
    torch.manual_seed(5)
    with grads.rows(rows.ids):
        grads.backward(*losses_of(model, rows, 3))
    return grads


@pytest.fixture(params=["whole", "chunks"])
def pieces(request, monkeypatch):
    """Let layers hand their gradients over at once, or in pieces of a few lines."""
    if request.param == "chunks":
        monkeypatch.setattr(scratch_rows, "SCRATCH", 700)


@pytest.mark.usefixtures("pieces")
def test_gramians_are_those_of_per_task(model_and_losses):
    model, losses_of = model_and_losses
    rows = random_rows(IDS)
    found, wanted = (step(model.eval(), engine, rows, losses_of) for engine in ("two_pass", "per_task"))
    assert error(found.gramian(), wanted.gramian()) < 1e-5
    torch.testing.assert_close(found.losses(), wanted.losses())
    for by in ("layer", "tensor"):
        mine, theirs = found.gramian(by=by), wanted.gramian(by=by)
        assert list(mine) == list(theirs)
        for name, block in theirs.items():
            # Against the whole: the key bias of BERT has no gradient but rounding.
            assert float((mine[name] - block).norm() / wanted.gramian().norm()) < 1e-6, name
    assert error(found.buffer.gramian_over("last"), wanted.buffer.gramian_over("last")) < 1e-5


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    "make", [PCGrad, lambda: Scoped(PCGrad(), by="tensor"), lambda: GradNorm(layers="last")], ids=["all", "by", "over"]
)
def test_the_combined_gradient_is_that_of_per_task(model_and_losses, make):
    model, losses_of = model_and_losses
    model.eval()
    other, rows = copy.deepcopy(model), random_rows(IDS)
    step(model, "two_pass", rows, losses_of).combine(make())
    step(other, "per_task", rows, losses_of).combine(make())
    assert error(gradient(model), gradient(other)) < 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_backwards_see_the_masks_of_the_one_forward(make_llama, checkpointing):
    model = make_llama(lora_dropout=0.4)
    model.train()
    if checkpointing:
        enable_checkpointing(model)
    other, rows = copy.deepcopy(model), random_rows(IDS)
    found, wanted = step(model, "two_pass", rows), step(other, "per_task", rows)
    assert error(found.gramian(), wanted.gramian()) < 1e-5
    found.combine(PCGrad())
    wanted.combine(PCGrad())
    assert error(gradient(model), gradient(other)) < 1e-5


@pytest.mark.usefixtures("pieces")
def test_layers_that_keep_their_weight_transposed():
    model, rows = make_gpt2().eval(), random_rows(IDS)
    other = copy.deepcopy(model)
    found, wanted = step(model, "two_pass", rows), step(other, "per_task", rows)
    assert error(found.gramian(), wanted.gramian()) < 1e-5
    found.combine(PCGrad())
    wanted.combine(PCGrad())
    assert error(gradient(model), gradient(other)) < 1e-5


def test_an_absent_task_takes_no_part(make_llama):
    model = make_llama()
    rows = random_rows((0, 2, 0))
    grads = step(model, "two_pass", rows)
    assert grads.present == [0, 2]
    assert grads.gramian()[1].count_nonzero() == 0
    assert grads.combine(PCGrad())[1] == 0


def test_halves_give_the_two_sample_gramian_of_rows(make_llama):
    model, rows = make_llama(), random_rows((0, 0, 1, 1, 2, 2, 2, 0))

    def take(engine):
        grads = TaskGradients(model, TASKS, engine, halves=True)
        with grads.rows(rows.ids):
            owned = type(rows)(rows.input_ids, rows.attention_mask, rows.labels, grads.owners)
            grads.backward(*token_losses(model, owned, 6))
        return grads

    found, wanted = take("two_pass"), take("one_pass")
    assert error(found.two_sample_gramian(), wanted.two_sample_gramian()) < 1e-5
    assert error(found.gramian(), wanted.gramian()) < 1e-5
    weights = torch.tensor([1.0, -2.0, 0.5])
    found.write(weights)
    mine = gradient(model)
    found.zero()
    wanted.write(weights)
    assert error(mine, gradient(model)) < 1e-5


def test_private_parameters_get_their_own_gradient_once():
    trunk, heads = nn.Linear(4, 5), nn.ModuleList(nn.Linear(5, 1) for _ in TASKS)
    model, x, ids = nn.ModuleList([trunk, heads]), torch.randn(6, 4), torch.arange(3).repeat(2)
    groups = {task: list(head.parameters()) for task, head in zip(TASKS, heads, strict=True)}

    def take(engine):
        grads = TaskGradients(model, TASKS, engine, private=groups)
        with grads.rows(ids):
            features = trunk(x)
            grads.backward(torch.stack([heads[t](features[ids == t]).square().mean() for t in range(3)]))
        grads.combine(PCGrad())
        found = gradient(model)
        grads.zero()
        return found

    assert error(take("two_pass"), take("per_task")) < 1e-5


def test_what_needs_rows_is_refused(make_llama):
    model, rows = make_llama(), random_rows(IDS)
    grads = step(model, "two_pass", rows)
    with pytest.raises(ValueError, match="`two_pass` takes one micro-batch per step"), grads.rows(rows.ids):
        grads.backward(*token_losses(model, rows, 3))
    with pytest.raises(ValueError, match="`two_pass` keeps no rows"):
        _ = grads.jacobian
    with pytest.raises(ValueError, match="`two_pass` keeps no rows"):
        TaskGradients(model, TASKS, "two_pass", window=20)
    grads.combine(PCGrad())
    with pytest.raises(ValueError, match="already written"):
        grads.write(torch.ones(3))


def test_verify_finds_a_loss_that_mixes_rows(make_llama):
    model, rows = make_llama(), random_rows(IDS)

    def mixed(model, rows, num_tasks):
        losses, counts = token_losses(model, rows, num_tasks)
        return losses + 0.1 * losses.sum(), counts

    step(model, "two_pass", rows, verify=True)
    with pytest.raises(ValueError, match="depends on rows of task"):
        step(model, "two_pass", rows, mixed, verify=True)


def test_the_next_step_starts_from_nothing(make_llama):
    model, rows = make_llama(), random_rows(IDS)
    grads = step(model, "two_pass", rows)
    first = grads.gramian().clone()
    grads.combine(PCGrad())
    grads.zero()
    with grads.rows(rows.ids):
        grads.backward(*token_losses(model, rows, 3))
    torch.testing.assert_close(grads.gramian(), first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), IDS])
def test_weights_below_what_the_layers_precision_holds_are_kept(dtype, ids):
    """Counts and a loss scale are divided out by the weights: 1e-9 here, which float16 does not have."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20, bias=False), nn.Tanh(), nn.Linear(20, 1, bias=False))
    x, ids = torch.randn(len(ids), 6), torch.tensor(ids)

    def gradient_of(engine):
        grads = TaskGradients(model, TASKS, engine)
        with grads.rows(ids), torch.autocast("cpu", dtype):
            squares = model(x).squeeze(-1).float().square()
            grads.backward(torch.stack([squares[ids == t].mean() for t in range(3)]) * 1e-9, torch.ones(3) * 1e9)
        grads.write(torch.tensor([1.0, -2.0, 0.5]))
        found = gradient(model)
        grads.zero()
        return found

    assert error(gradient_of("two_pass"), gradient_of("one_pass")) < 0.01
