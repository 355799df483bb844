"""Heads: losses against a literal oracle, gradients that stay with their task, what is predicted and refused."""

from dataclasses import replace

import pytest
import torch
from models.head_cases import SPECS, batch_of, decoder, rows_of, with_heads
from references.heads_reference import literal_losses

from mtl_opt import PCGrad, TaskGradients
from mtl_opt.batch import task_rows
from mtl_opt.models import (
    LoraSettings,
    build_sharing,
    enable_checkpointing,
    private_parameters,
    put_heads,
    share,
    task_losses,
)

KINDS = ("encoder", "decoder")
IDS = {"encoder": [2, 0, 0, 1, 3, 1, 0, 2, 3], "decoder": [2, 0, 0, 1, 3, 1, 0, 2, 4, 5, 4, 3]}


def gradients_of(model, batches, engine, **arguments):
    grads = TaskGradients(model, list(model.tasks), engine, **arguments)
    for batch in batches:
        with grads.rows(batch.task_ids):
            losses, counts = task_losses(model, replace(batch, task_ids=grads.owners), grads.num_losses)
            grads.backward(losses, counts)
    return grads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [True, False])
def test_losses_are_those_of_every_row_alone(kind, lora):
    model = with_heads(kind, lora)
    batch = batch_of(model, IDS[kind])
    losses, counts = task_losses(model, batch, len(model.tasks))
    wanted, numbers = literal_losses(model, batch, len(model.tasks))
    torch.testing.assert_close(losses, wanted)
    assert counts.tolist() == numbers.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [True, False])
def test_heads_that_pool_by_attention_take_exact_gradients(kind, lora):
    specs = {task: {**SPECS[task], "pooling": "task_attention"} for task in ("情感", "score", "topic")}
    model = with_heads(kind, lora, specs).double()
    batch = batch_of(model, [2, 0, 0, 1, 1, 0, 2])
    found = {}
    for engine in ("per_task", "one_pass"):
        grads = gradients_of(model, [batch], engine, verify=True)
        rows = grads.jacobian.clone()
        grads.combine(PCGrad())
        found[engine] = rows, [p.grad.clone() for group in private_parameters(model).values() for p in group]
        grads.zero()
    torch.testing.assert_close(found["one_pass"][0], found["per_task"][0], rtol=1e-5, atol=1e-8)  # losses are float32
    for one, other in zip(found["one_pass"][1], found["per_task"][1], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [True, False])
def test_one_pass_and_two_pass_equal_per_task(kind, lora):
    model = with_heads(kind, lora)
    batches = [batch_of(model, IDS[kind])]
    found = {}
    for engine in ("per_task", "one_pass", "two_pass"):
        grads = gradients_of(model, batches, engine, verify=True)
        gramian = grads.gramian()
        grads.combine(PCGrad())
        found[engine] = gramian, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        grads.zero()
    for engine in ("one_pass", "two_pass"):
        torch.testing.assert_close(found[engine][0], found["per_task"][0], rtol=1e-5, atol=1e-7)
        assert found[engine][1].keys() == found["per_task"][1].keys()
        for name, gradient in found["per_task"][1].items():
            torch.testing.assert_close(found[engine][1][name], gradient, rtol=1e-4, atol=1e-6)


def test_micro_batches_are_one_large_batch():
    model = with_heads("decoder")
    batch = batch_of(model, IDS["decoder"])
    whole = gradients_of(model, [batch], "one_pass")
    wanted = whole.jacobian.clone()
    whole.zero()
    parts = [rows_of(batch, chosen) for chosen in torch.arange(len(batch.task_ids)).split([3, 4, 5])]
    torch.testing.assert_close(gradients_of(model, parts, "one_pass").jacobian, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ["one_pass", "per_task", "two_pass"])
def test_rows_of_one_task_do_not_touch_the_head_of_another(engine):
    model = with_heads("decoder")
    batch = batch_of(model, IDS["decoder"])
    heads = []
    for other in (batch.input_ids, (batch.input_ids * 7 + 3) % 61):  # rows of task 0 alone are changed
        changed = torch.where((batch.task_ids == 0)[:, None], other, batch.input_ids)
        grads = gradients_of(model, [replace(batch, input_ids=changed)], engine)
        grads.write(torch.ones(len(model.tasks)))
        heads.append([[p.grad for p in head.parameters()] for head in model.heads])
        grads.zero()
    for task, (first, second) in enumerate(zip(*heads, strict=True)):
        same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
        assert all(same) if task else not any(same)


@pytest.mark.parametrize("engine", ["one_pass", "per_task", "two_pass"])
@pytest.mark.parametrize("unlabelled", [True, False], ids=["unlabelled", "absent"])
def test_the_head_of_an_absent_task_does_not_move_at_all(engine, unlabelled):
    model = with_heads("encoder")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    first = batch_of(model, IDS["encoder"])
    grads = gradients_of(model, [first], engine)
    grads.combine(PCGrad())
    optimizer.step()  # momentum for all
    grads.zero()
    before = {name: p.detach().clone() for name, p in model.heads.named_parameters()}
    if unlabelled:
        second = replace(first, targets=torch.where(first.task_ids == 1, torch.nan, first.targets))
    else:
        second = rows_of(first, first.task_ids != 1)
    grads = gradients_of(model, [second], engine)
    assert grads.present == [0, 2, 3]
    grads.combine(PCGrad())
    optimizer.step()
    for name, p in model.heads.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("1."), name


def test_a_row_without_a_label_takes_no_part():
    model = with_heads("encoder")
    batch = batch_of(model, [0, 0, 0])
    assert torch.isnan(batch.targets[2])
    losses, counts = task_losses(model, batch, 4)
    alone, _ = task_losses(model, rows_of(batch, torch.tensor([0, 1])), 4)
    assert counts.tolist() == [2, 0, 0, 0]
    torch.testing.assert_close(losses, alone)


def test_checkpointing_and_bfloat16_give_the_same_gradients():
    model = with_heads("decoder")
    batches = [batch_of(model, IDS["decoder"])]
    plain = gradients_of(model, batches, "one_pass")
    wanted = plain.jacobian.clone()
    plain.zero()
    enable_checkpointing(model)
    model.train()
    found = gradients_of(model, batches, "one_pass")
    torch.testing.assert_close(found.jacobian, wanted)
    found.zero()
    with torch.autocast("cpu", torch.bfloat16):
        half = gradients_of(model, batches, "one_pass").jacobian
    assert float((half - wanted).norm() / wanted.norm()) < 0.05


def test_halves_go_to_losses_of_their_own():
    model = with_heads("encoder")
    batch = batch_of(model, [0, 0, 1, 1, 2, 2, 3, 3])
    batch = replace(batch, targets=torch.where(torch.isnan(batch.targets), 1.0, batch.targets))
    grads = gradients_of(model, [batch], "one_pass", halves=True)
    assert grads.num_losses == 8
    wanted = gradients_of(model, [batch], "per_task").jacobian
    torch.testing.assert_close(grads.jacobian, wanted, rtol=1e-4, atol=1e-6)


def test_private_are_the_heads_and_nothing_else():
    model = with_heads("decoder")
    own = private_parameters(model)
    assert set(own) == {*SPECS, "qa"}  # `plain` has no parameter of its own
    ids = {id(p) for parameters in own.values() for p in parameters}
    assert ids == {id(p) for p in model.heads.parameters()}
    assert model.task_parameters().keys() == own.keys()


@pytest.mark.parametrize("name", ["sparse_experts", "disentangled"])
def test_padding_is_padding_for_terms_of_sharing_too(name):
    torch.manual_seed(0)
    backbone = decoder()
    arguments = {"sparse_experts": {"balance_loss": 1.0}, "disentangled": {"adversary": 1.0}}[name]
    share(backbone, build_sharing(name, arguments), ("情感", "score"), LoraSettings(rank=2, alpha=4))
    model = put_heads(backbone, {task: SPECS[task] for task in ("情感", "score")}, "tiny").train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    short = batch_of(model, [0, 0, 1, 1], seq=6)
    short = replace(short, attention_mask=torch.ones_like(short.input_ids))

    def wide(values, fill):
        return torch.cat([values, torch.full((4, 5), fill)], 1)

    long = replace(
        short, input_ids=wide(short.input_ids, 3), attention_mask=wide(short.attention_mask, 0),
        labels=wide(short.labels, -100),
    )  # fmt: skip
    found = []
    for batch in (short, long):
        with task_rows(batch.task_ids):
            losses, _ = task_losses(model, batch, 2)
            losses.sum().backward()
        found.append([losses.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"targets": [0.0, 1.5, 3.0, 0.0]}, "Row 2 of the batch, of task `情感`: a class must be a whole number"),
        ({"targets": [0.5, 1.5, 2.0, 0.0]}, "Row 0 of the batch, of task `情感`: .* got 0.5."),
        ({"task_ids": [0, 1, 0, 4]}, "Row 3: `task_ids` must be from 0 to 3, got 4."),
        ({"labels": 7}, "Row 3 of the batch, of task `items`: a class must be a whole number from 0 to 1, got 7."),
    ],
)  # fmt: skip
def test_targets_that_a_head_does_not_have_are_named(changes, sentence):
    model = with_heads("encoder")
    batch = batch_of(model, [0, 1, 0, 2])
    batch = replace(batch, targets=torch.tensor([0.0, 1.5, float("nan"), 0.0]), labels=batch.labels.clone())
    made = {k: torch.tensor(v) for k, v in changes.items() if k != "labels"}
    if "labels" in changes:
        batch.labels[3, 1] = changes["labels"]
    with pytest.raises(ValueError, match=sentence):
        model(replace(batch, **made), 4)


def test_packed_rows_are_refused():
    model = with_heads("encoder")
    batch = batch_of(model, [0])
    with pytest.raises(ValueError, match="packed"):
        model(replace(batch, position_ids=batch.input_ids), 4)
