"""What every way of sharing promises, over the whole registry."""

import pytest
import torch
from models.sharing_cases import LORA, TASKS, losses_of, make_batch, make_model, make_opt
from torch import nn

from mtl_opt import PCGrad, TaskGradients
from mtl_opt.batch import task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import SHARING, build_sharing, enable_checkpointing, private_parameters, share, task_losses

NAMES = list(SHARING)


def gradients(model, engine, batch, checkpointed=False):
    """Take one step's gradients; give the rows by parameter and the private gradients by task."""
    if checkpointed:
        enable_checkpointing(model)
    model.train()
    grads = TaskGradients(model, TASKS, engine, private=private_parameters(model), verify=engine == "one_pass")
    torch.manual_seed(5)
    with grads.rows(batch.task_ids):
        grads.backward(*task_losses(model, batch, len(TASKS)))
    rows = {name: grads.jacobian[:, at].clone() for name, at in grads.buffer.tensors.items()}
    grads.combine(PCGrad())
    own = {t: [None if p.grad is None else p.grad.clone() for p in g] for t, g in private_parameters(model).items()}
    grads.zero()
    return rows, own


def assert_same(found, wanted, tolerance=1e-5):
    rows, own = found
    other_rows, other_own = wanted
    assert rows.keys() == other_rows.keys()
    for name, row in rows.items():
        torch.testing.assert_close(row, other_rows[name], rtol=tolerance, atol=tolerance, msg=name)
    for task, group in own.items():
        for a, b in zip(group, other_own[task], strict=True):
            assert (a is None) == (b is None), task
            if a is not None:
                torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0, 2, 2), (0, 2, 2)])
def test_one_pass_equals_one_backward_per_task(name, ids):
    batch = make_batch(ids)
    assert_same(gradients(make_model(name), "one_pass", batch), gradients(make_model(name), "per_task", batch))


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_see_all_tokens_below_each_other_give_the_same_rows_and_gradients(name):
    batch = make_batch((2, 0, 1, 0, 2, 2))
    model = make_opt(name).eval()
    with torch.no_grad(), task_rows(batch.task_ids):
        together = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    for row in range(6):
        at = slice(row, row + 1)
        with torch.no_grad(), task_rows(batch.task_ids[at]):
            alone = model(input_ids=batch.input_ids[at], attention_mask=batch.attention_mask[at]).logits
        real = batch.attention_mask[row].bool()
        torch.testing.assert_close(together[row][real], alone[0][real], rtol=1e-4, atol=1e-5)
    wanted = gradients(make_opt(name), "per_task", batch)
    assert_same(gradients(make_opt(name), "one_pass", batch), wanted)
    assert_same(gradients(make_opt(name), "one_pass", batch, checkpointed=True), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_nothing(name):
    batch = make_batch((0, 1, 1, 2, 2, 2))
    wanted = gradients(make_model(name), "one_pass", batch)
    assert_same(gradients(make_model(name), "one_pass", batch, checkpointed=True), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_one_task_do_not_touch_anothers_parameters(name):
    alone = make_batch((1, 1))
    both = make_batch((1, 1, 0, 2))
    wanted, found = (gradients(make_model(name), "one_pass", batch)[1] for batch in (alone, both))
    for a, b in zip(found.get("摘要", []), wanted.get("摘要", []), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert float((a - b).abs().max()) <= 1e-6 * max(1e-3, float(b.abs().max()))
    assert all(gradient is None for gradient in gradients(make_model(name), "one_pass", alone)[1].get("qa", []))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_neighbours(name):
    model = make_model(name).eval()
    batch = make_batch((2, 0, 1, 0))
    with torch.no_grad(), task_rows(batch.task_ids):
        together = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    for row in range(4):
        at = slice(row, row + 1)
        with torch.no_grad(), task_rows(batch.task_ids[at]):
            alone = model(input_ids=batch.input_ids[at], attention_mask=batch.attention_mask[at]).logits
        kept = batch.attention_mask[at].bool()
        torch.testing.assert_close(alone[kept], together[at][kept], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_answer_is_the_one_of_its_task(name):
    model = make_model(name).eval()
    tokens = make_batch((0, 1)).input_ids[:, :4]
    ids = torch.tensor([0, 2])
    with task_rows(ids):
        found = model.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None)
    for row, task in enumerate(ids.tolist()):
        with task_rows(torch.tensor([task])):
            wanted = tokens[row : row + 1]
            for _ in range(4):
                wanted = torch.cat([wanted, model(input_ids=wanted).logits[:, -1:].argmax(-1)], 1)
        assert found[row].tolist() == wanted[0].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_bases_train(name):
    model = make_model(name)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = losses_of(model, make_batch())
    assert losses.isfinite().all()
    losses.sum().backward()
    assert any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_one_kind_of_owner(name):
    model = make_model(name)
    own = private_parameters(model)
    assert set(own) <= set(TASKS)
    flat = [id(p) for group in own.values() for p in group]
    assert len(flat) == len(set(flat))
    for module in model.modules():  # a leaf with both kinds could not be wired
        kinds = {id(p) in flat for p in module.parameters(recurse=False) if p.requires_grad}
        assert len(kinds) < 2, type(module).__name__


@pytest.mark.parametrize("name", NAMES)
def test_a_model_asked_outside_any_context_says_so(name):
    if not private_parameters(make_model(name)):
        pytest.skip("nothing is private: no row needs an owner")
    with pytest.raises(ValueError, match=r"run the model inside `with task_rows\(ids\):`"):
        make_model(name)(input_ids=make_batch().input_ids)


def test_unknown_names_and_arguments_are_refused():
    with pytest.raises(InputError, match="Did you mean `private_layers`"):
        build_sharing("private_layer", {})
    with pytest.raises(InputError, match=r"`private_layers` has no argument `depth`\. Allowed: layers"):
        build_sharing("private_layers", {"depth": 1})
    with pytest.raises(InputError, match="`layers` must be a whole number of at least 1, got 0"):
        build_sharing("private_layers", {"layers": 0})
    with pytest.raises(ValueError, match="`layers` must be at most 4"):
        make_model("private_layers", layers=5)
    with pytest.raises(InputError, match="none that `lora_target` names"):
        share(nn.Sequential(nn.ReLU()), build_sharing("hard", {}), TASKS, LORA)
