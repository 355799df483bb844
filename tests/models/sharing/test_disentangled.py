"""Shared and private features held apart: literal gradient reversal, penalties against whole updates."""

import pytest
import torch
from models.sharing_cases import TASKS, losses_of, make_batch, make_model
from references.sharing_reference import update

from mtl_opt import Sum, TaskGradients
from mtl_opt.batch import task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import build_sharing, enable_checkpointing, private_parameters, row_terms, task_losses
from mtl_opt.models.sharing.parts.discriminator import TaskDiscriminator

IDS = (2, 0, 1, 0)
KEPT = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])


def one_step(checkpointed=False, engine="one_pass", seed=2):
    model = make_model("disentangled", layers=2).train()
    if checkpointed:
        enable_checkpointing(model)
    batch = make_batch((0, 1, 1, 2), seed=seed)
    grads = TaskGradients(model, TASKS, engine, private=private_parameters(model))
    with grads.rows(batch.task_ids):
        grads.backward(*task_losses(model, batch, 3))
    grads.penalty(model.sharing.penalty(1, 10))
    grads.combine(Sum())
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("other", [{"checkpointed": True}, {"engine": "per_task"}])
def test_recomputed_rows_are_not_counted_twice(other):
    wanted, found = one_step(), one_step(**other)
    assert any("classifier" in name and bool(g.any()) for name, g in wanted.items())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


def test_the_game_of_the_discriminator_is_no_gradient_of_a_task():
    model = make_model("disentangled").train()
    batch = make_batch()
    grads = TaskGradients(model, TASKS, "one_pass", private=private_parameters(model))
    with grads.rows(batch.task_ids):
        grads.backward(*task_losses(model, batch, 3))
    for name, columns in grads.buffer.tensors.items():
        assert bool(grads.jacobian[:, columns].any()) != ("classifier" in name), name


def test_the_adversary_reaches_the_shared_matrix_of_its_layer_alone():
    def gradients(adversary):
        model = make_model("disentangled", layers=1).train()
        for judge in (m for m in model.modules() if isinstance(m, TaskDiscriminator)):
            judge.strength = adversary
        losses, _ = losses_of(model, make_batch())
        losses.sum().backward()
        return losses.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    (losses, with_it), (plain, without) = gradients(0.5), gradients(0.0)
    assert torch.equal(losses, plain)
    moved = {name for name, gradient in without.items() if not torch.equal(gradient, with_it[name])}
    assert moved == {name for name in without if "layers.3." in name and name.endswith("shared.lora_A.weight")}


def test_padding_does_not_count():
    def term(pad):
        model = make_model("disentangled").train()
        tokens = make_batch((0, 1, 2)).input_ids
        mask = torch.ones_like(tokens)
        if pad:
            tokens, mask = (torch.nn.functional.pad(t, (0, 4)) for t in (tokens, mask))
        with task_rows(torch.tensor([0, 1, 2])):
            model(input_ids=tokens, attention_mask=mask)
        row_terms(model).sum().backward()
        return [
            p.grad for n, p in model.named_parameters() if n.endswith("shared.lora_A.weight") and p.grad is not None
        ]

    torch.testing.assert_close(term(pad=False), term(pad=True), rtol=1e-4, atol=1e-7)


def test_the_overlap_is_that_of_whole_updates():
    model = make_model("disentangled", orthogonality=0.2, adversary=0)
    wanted = 0
    for adapter in model.sharing.adapters:
        shared = update(adapter.shared, 0)
        wanted = wanted + sum(0.2 * (shared @ update(adapter.private, t).T).square().sum() for t in range(3))
    found = model.sharing.penalty(1, 10)
    torch.testing.assert_close(found, wanted)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for a, b in zip(*(torch.autograd.grad(term, parameters) for term in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)
    model.sharing.present = [1]
    private = model.sharing.adapters[0].private
    absent, present = torch.autograd.grad(model.sharing.penalty(1, 10), private.task_A[:2], allow_unused=True)
    assert absent is None
    assert bool(present.any())


def test_a_fixed_task_is_one_adapter_of_twice_the_rank():
    adapter = make_model("disentangled").sharing.adapters[0].eval()
    x = torch.randn(4, 3, 16)
    with task_rows(torch.tensor(IDS)):
        found = adapter(x)
    for row, task in enumerate(IDS):
        a, b = adapter.lora_of(task)
        assert a.shape == (6, 16)
        torch.testing.assert_close(found[row], x[row] @ a.T @ b.T)


def test_halves_take_the_terms_of_their_task():
    model = make_model("disentangled").train()
    batch = make_batch((0, 0, 1, 1, 2, 2))
    grads = TaskGradients(model, TASKS, "one_pass", private=private_parameters(model), halves=True)
    from dataclasses import replace

    with grads.rows(batch.task_ids):
        losses, counts = task_losses(model, replace(batch, task_ids=grads.owners), grads.num_losses)
        grads.backward(losses, counts)
    assert grads.gramian().isfinite().all()


def test_one_task_has_no_discriminator_and_bad_strengths_are_refused():
    assert not [m for m in make_model("disentangled", tasks=("摘要",)).modules() if isinstance(m, TaskDiscriminator)]
    assert not [m for m in make_model("disentangled", adversary=0).modules() if isinstance(m, TaskDiscriminator)]
    with pytest.raises(InputError, match="`adversary` must be a number of at least 0, got -1"):
        build_sharing("disentangled", {"adversary": -1})
