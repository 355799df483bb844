"""Rotations of the last hidden state: orthogonal, aligned by their own objective, written out as the reference."""

import pytest
import torch
from models.sharing_cases import LORA, TASKS, losses_of, make_batch, make_model, make_opt
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertLMHeadModel, BertModel

from mtl_opt import Sum, TaskGradients
from mtl_opt.batch import task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import (
    build_sharing,
    enable_checkpointing,
    load_sharing,
    merge,
    private_parameters,
    products_of,
    save_sharing,
    share,
    task_losses,
)


def caught(engine="one_pass", checkpointed=False, verify=False, parts=1, scale=False):
    """Take one step; give what the rotations saw and the rotations' own gradients."""
    model = make_model("rotograd", burn_in=0, scale=scale).train()
    if checkpointed:
        enable_checkpointing(model)
    batch = make_batch((0, 1, 1, 2))
    grads = TaskGradients(model, TASKS, engine, private=private_parameters(model), verify=verify)
    for _ in range(parts):
        with grads.rows(batch.task_ids):
            grads.backward(*task_losses(model, batch, 3))
    seen = model.sharing.rotations.sums.clone(), model.sharing.rotations.tokens.clone()
    grads.penalty(model.sharing.penalty(1, 10))
    grads.combine(Sum())
    return seen, [angles.grad for angles in model.sharing.rotations.angles]


@pytest.mark.parametrize(
    "other", [{"engine": "per_task"}, {"engine": "two_pass"}, {"checkpointed": True}, {"verify": True}]
)
def test_every_engine_sees_each_gradient_once(other):
    wanted, found = caught(), caught(**other)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert all(bool(g.any()) for g in found[1])


def test_micro_batches_add_up():
    (sums, tokens), _ = caught()
    (twice, twice_tokens), _ = caught(parts=2)
    torch.testing.assert_close(twice, 2 * sums)
    torch.testing.assert_close(twice_tokens, 2 * tokens)


def test_what_is_seen_is_the_gradient_with_respect_to_the_turned_state():
    model = make_model("rotograd").train()
    batch = make_batch((0, 1, 1, 2))
    kept = {}

    def keep(module, inputs, output):  # noqa: ARG001
        output.retain_grad()
        kept["r"] = output

    model.sharing.rotations.register_forward_hook(keep)
    losses, counts = losses_of(model, batch)
    (losses * counts).sum().backward()
    gradient = kept["r"].grad
    for task in range(3):
        own = gradient[batch.task_ids == task]
        torch.testing.assert_close(model.sharing.rotations.sums[task], own.sum((0, 1)))
        assert int(model.sharing.rotations.tokens[task]) == int(counts[task])


def test_the_losses_do_not_turn_anything_and_the_objective_falls():
    model = make_model("rotograd", burn_in=2).train()
    batch = make_batch()
    rotations = model.sharing.rotations
    optimizer = torch.optim.SGD(rotations.parameters(), lr=0.05)
    values = []
    for step in range(1, 12):
        losses_of(model, batch)[0].sum().backward()
        assert all(angles.grad is None for angles in rotations.angles)
        term = model.sharing.penalty(step, 12)
        assert (term is None) == (step <= 2)
        if term is not None:
            values.append(term.item())
            term.backward()
            optimizer.step()
        model.zero_grad()
    assert values[-1] < values[0] - 0.05
    assert not rotations.sums.any()


def test_a_task_without_rows_or_company_is_not_turned():
    model = make_model("rotograd", burn_in=0).train()
    losses_of(model, make_batch((0, 2, 2)))[0].sum().backward()
    found = torch.autograd.grad(model.sharing.penalty(1, 9), [*model.sharing.rotations.angles], allow_unused=True)
    assert [g is None for g in found] == [False, True, False]
    losses_of(model, make_batch((1, 1)))[0].sum().backward()
    assert model.sharing.penalty(2, 9) is None


def test_the_norms_travel_with_the_rotations(tmp_path):
    model = make_model("rotograd", scale=True)
    model.sharing.rotations.first_norms.fill_(2.0)
    model.sharing.rotations.factors.fill_(0.5)
    save_sharing(model, tmp_path, {"sharing": "rotograd", "tasks": list(TASKS)})
    other = make_model("rotograd", seed=3, scale=True)
    load_sharing(other, tmp_path, "rotograd", TASKS)
    assert other.sharing.rotations.first_norms.tolist() == [2.0] * 3
    assert other.sharing.rotations.factors.tolist() == [0.5] * 3
    torch.testing.assert_close(other.sharing.rotations.angles[1], model.sharing.rotations.angles[1])


def test_the_rotation_merges_into_the_output_layer():
    model = make_model("rotograd").eval()
    batch = make_batch((1, 1))
    with torch.no_grad(), task_rows(batch.task_ids):
        wanted = model(input_ids=batch.input_ids).logits
        turned = model.model(input_ids=batch.input_ids).last_hidden_state
    matrix = model.sharing.rotations.output_matrix_of(1)
    merged = (turned @ matrix) @ (model.lm_head.weight @ matrix).T  # back to the state before, then the merged layer
    torch.testing.assert_close(merged, wanted, rtol=1e-4, atol=1e-5)


def test_an_encoder_is_turned_at_its_last_hidden_state():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=64, **sizes), add_pooling_layer=False)
    share(model, build_sharing("rotograd", {}), TASKS, LORA)
    ids = torch.randint(0, 64, (2, 4))
    with torch.no_grad():
        torch.nn.init.normal_(model.sharing.rotations.angles[0])
    model.eval()
    with torch.no_grad(), task_rows(torch.tensor([0, 1])):
        found = model(input_ids=ids).last_hidden_state
    with torch.no_grad(), task_rows(torch.tensor([1, 1])):
        plain = model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found[0], plain[0] @ model.sharing.rotations.output_matrix_of(0).T)
    torch.testing.assert_close(found[1], plain[1])


def test_angles_have_a_learning_rate_of_their_own():
    model = make_model("rotograd", learning_rate_factor=0.2)
    found = model.sharing.optimizer_options()
    assert set(found) == {id(p) for p in model.sharing.rotations.angles}
    assert found[id(model.sharing.rotations.angles[0])] == {"weight_decay": 0.0, "learning_rate_factor": 0.2}
    assert set(model.sharing.report()) == {"rotation_qa", "rotation_摘要", "rotation_anger"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": 1}, "`block` must be a whole number of at least 2, got 1"),
        ({"burn_in": -1}, "`burn_in` must be a whole number of at least 0, got -1"),
        ({"scale": 1}, "`scale` must be true or false, got 1"),
        ({"learning_rate_factor": -1}, "`learning_rate_factor` must be a number of at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        build_sharing("rotograd", arguments)


def test_a_block_that_does_not_fit_the_model_is_refused():
    with pytest.raises(ValueError, match="`block` must divide 16, the hidden size of the model, got 5"):
        make_model("rotograd", block=5)


def turned(model, task, angle=0.3):
    """Turn one task's rotation away from the identity; give logits with it and those of a task that is not turned."""
    with torch.no_grad():
        model.sharing.rotations.angles[task].fill_(angle)
    batch = make_batch((task, (task + 1) % 3))
    model.eval()
    with torch.no_grad(), task_rows(batch.task_ids):
        found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    with torch.no_grad(), task_rows(torch.full((2,), (task + 1) % 3)):
        plain = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return found, plain, batch


@pytest.mark.parametrize("projected", [16, 8])
def test_opt_which_calls_its_decoder_itself_is_turned(projected):
    model = make_opt("rotograd", projected=projected)
    for angles in model.sharing.rotations.angles:
        torch.nn.init.zeros_(angles)
    assert model.sharing.rotations.sums.shape[1] == projected  # what the output layer reads
    found, plain, batch = turned(model, 0)
    assert float((found[0] - plain[0]).abs().max()) > 1e-3
    torch.testing.assert_close(found[1], plain[1])
    products = products_of(model, 0)
    base = make_opt("hard", projected=projected, bare=True)
    merged = merge(base, products, torch.float32).eval()
    with torch.no_grad():
        own = merged(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(own[0], found[0], rtol=1e-4, atol=1e-5)


def test_a_transform_between_the_last_hidden_state_and_the_output_layer_is_refused():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertLMHeadModel(BertConfig(vocab_size=64, is_decoder=True, **sizes))
    with pytest.raises(ValueError, match=r"BertLMHeadModel reads something else than the last .* not supported"):
        share(model, build_sharing("rotograd", {}), TASKS, LORA)
    assert not any("_forward_hooks" in vars(m) and m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "gpt_neox"])
def test_other_causal_models_are_turned_where_their_output_layer_reads(kind):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, vocab_size=260, **sizes)
    model = share(AutoModelForCausalLM.from_config(config), build_sharing("rotograd", {}), TASKS, LORA)
    found, plain, _ = turned(model, 1)
    assert float((found[0] - plain[0]).abs().max()) > 1e-3
    torch.testing.assert_close(found[1], plain[1])
