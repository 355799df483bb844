"""Sparse experts: active experts only, or all of them masked; and the terms that keep them in use."""

import pytest
import torch
from models.sharing_cases import TASKS, inputs, losses_of, make_batch, make_model, one_adapter
from references import experts_reference as literal
from torch import nn

from mtl_opt import TaskGradients
from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.models import LoraSettings, private_parameters, row_terms, task_losses


def test_only_active_experts_are_computed():
    adapter = one_adapter("sparse_experts", dispatch="grouped")
    adapter.router.weight.data[:] = 0
    adapter.router.weight.data[[1, 3], 0] = torch.tensor([2.0, 1.0])  # x_0 > 0: experts 1 and 3, never all four
    seen = {}
    for number, expert in enumerate(adapter.lora_A):
        expert.register_forward_hook(lambda _m, x, _y, n=number: seen.update({n: len(x[0])}))
    ids, x = inputs((0, 1, 2))
    x = x.detach().abs()
    with task_rows(ids):
        adapter(x).sum().backward()
    assert seen == {1: 15, 3: 15}
    assert adapter.lora_A[0].weight.grad is None
    assert adapter.lora_A[1].weight.grad is not None


def test_tokens_are_never_dropped_and_counted_once_per_expert():
    adapter = one_adapter("sparse_experts", num_experts=5, top_k=3, dispatch="grouped")
    seen = []
    for expert in adapter.lora_B:
        expert.register_forward_hook(lambda _m, x, _y: seen.append(len(x[0])))
    ids, x = inputs((0, 1, 2, 1))
    with task_rows(ids):
        adapter(x)
    assert sum(seen) == 4 * 5 * 3


def test_terms_are_those_of_the_literal_version_without_padding():
    model = make_model("sparse_experts", num_layers=2, balance_loss=0.3, z_loss=0.7).train()
    said = []
    for module in model.modules():
        if hasattr(module, "router"):
            module.router.register_forward_hook(lambda _m, _x, y: said.append(y.detach().flatten(0, 1)))
    batch = make_batch((2, 0, 0, 2))
    with task_rows(batch.task_ids):
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    found = row_terms(model)
    owners = batch.task_ids[:, None].expand_as(batch.input_ids).flatten()
    wanted = torch.zeros(3)
    for logits in said:
        balance, z = literal.router_terms(logits, owners, batch.attention_mask.flatten(), 3, 2)
        wanted += (0.3 * balance + 0.7 * z) / len(said)
    torch.testing.assert_close(found.detach(), wanted)
    assert found[1] == 0  # absent
    assert row_terms(model) is None  # taken


def test_padding_changes_no_term():
    model = make_model("sparse_experts", num_layers=2).train()
    short = make_batch((0, 0, 1), length=5)
    mask = torch.ones_like(short.attention_mask)
    pad = torch.zeros(3, 4, dtype=torch.long)
    long = torch.cat([short.input_ids, pad], 1)
    found = []
    for tokens, seen in ((short.input_ids, mask), (long, torch.cat([mask, pad], 1))):
        with task_rows(short.task_ids):
            model(input_ids=tokens, attention_mask=seen)
        found.append(row_terms(model))
    torch.testing.assert_close(*found)


def test_there_are_no_terms_in_evaluation_or_without_strengths():
    batch = make_batch()
    silent = make_model("sparse_experts", num_layers=1, balance_loss=0, z_loss=0).train()
    for model in (make_model("sparse_experts", num_layers=1).eval(), silent):
        with task_rows(batch.task_ids):
            model(input_ids=batch.input_ids)
        assert row_terms(model) is None
        assert model.sharing.report() == {}


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_the_balance_loss_balances(strength):
    adapter = one_adapter("sparse_experts", balance_loss=strength, z_loss=0.0 if not strength else 1e-4).train()
    with torch.no_grad():
        adapter.router.weight[:2] += 1.0  # inputs are above 0: two experts begin with all tokens
    ids, x = inputs((0, 0, 1, 1, 2, 2) * 3)
    x, target = x.detach() + 2, torch.randn(18, 5, 5, generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.02)
    loads = []
    for _ in range(60):
        with task_rows(ids):
            y = adapter(x)
            loads.append(float(adapter.router(x).topk(2).indices.flatten().bincount(minlength=4).max() / (2 * 18 * 5)))
            terms = adapter.take_row_terms()
            ((y - target).square().mean() + (0 if terms is None else terms.sum())).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loads[0] > 0.4
    assert (loads[-1] < 0.33) == bool(strength)


@pytest.mark.parametrize("dispatch", ["masked", "grouped"])
def test_interleaved_rows_keep_their_task_and_gradient_is_exact(dispatch):
    model = make_model("sparse_experts", num_layers=2, balance_loss=0.5, dispatch=dispatch).train()
    batch = make_batch((2, 0, 2, 1, 0))
    grads = TaskGradients(model, TASKS, "one_pass", private=private_parameters(model), verify=True)
    with grads.rows(batch.task_ids):
        grads.backward(*task_losses(model, batch, 3))
    rows = grads.jacobian.clone()
    for task in range(3):
        own = batch.task_ids == task
        alone = TaskBatch(batch.input_ids[own], batch.attention_mask[own], batch.labels[own], batch.task_ids[own])
        losses, _ = losses_of(model, alone)
        shared = list(grads.buffer.parameters.values())
        found = torch.autograd.grad(losses[task], shared, allow_unused=True)
        wanted = [torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, shared, strict=True)]
        torch.testing.assert_close(rows[task], torch.cat(wanted), rtol=1e-4, atol=1e-6)


def test_both_ways_of_dispatch_give_the_same_and_auto_takes_the_cheaper_one():
    masked, grouped = (one_adapter("sparse_experts", dispatch=name) for name in ("masked", "grouped"))
    with torch.no_grad():
        grouped.router.weight.copy_(masked.router.weight)
        for e in range(4):
            for own, other in zip(literal.expert_of(grouped, e), literal.expert_of(masked, e), strict=True):
                own.copy_(other)
    ids, x = inputs((0, 1, 2))
    with task_rows(ids):
        torch.testing.assert_close(grouped(x), masked(x))
    kinds = [type(one_adapter("sparse_experts", lora=LoraSettings(rank=rank, alpha=8))) for rank in (96, 97)]
    assert kinds == [type(masked), type(grouped)]


def test_halves_are_refused_in_a_sentence_where_rows_are_gathered():
    model = make_model("sparse_experts", num_layers=1, dispatch="grouped").train()
    batch = make_batch((0, 0, 1, 1, 2, 2))
    from dataclasses import replace

    grads = TaskGradients(model, TASKS, "one_pass", halves=True)
    with pytest.raises(ValueError, match="halves cannot follow"), grads.rows(batch.task_ids):
        grads.backward(*task_losses(model, replace(batch, task_ids=grads.owners), grads.num_losses))


def test_experts_of_the_base_layer_may_be_conv1d():
    from transformers.pytorch_utils import Conv1D

    from mtl_opt.models.sharing import AdaptedLinear, LinearLayer, SharingContext
    from mtl_opt.models.sharing.sparse_experts import SparseExperts

    model = nn.ModuleDict({"c_fc": Conv1D(5, 6)})
    layer = LinearLayer("c_fc", model["c_fc"], None, 0)
    SparseExperts().apply(SharingContext(model, TASKS, LoraSettings(rank=2, alpha=2), (layer,)))
    assert isinstance(model["c_fc"], AdaptedLinear)
    ids, x = inputs((0, 1))
    with task_rows(ids):
        assert torch.equal(model["c_fc"](x), model["c_fc"].base_layer(x))  # B begins at zero
