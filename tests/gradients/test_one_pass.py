"""One backward fills the rows of all tasks, exactly as one backward per task would."""

import copy

import pytest
import torch
from references.jacobian_reference import (
    class_losses,
    join,
    random_rows,
    reference_jacobian,
    token_losses,
)
from torch import nn

from mtl_opt.batch import task_rows
from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "投诉", "anger")
# Rows of a task apart from each other, tasks absent from a micro-batch, and one batch with equal parts.
MICRO_BATCHES = ((2, 0, 0, 1, 0, 2, 2), (0, 3, 0), (0, 0, 1, 1, 2, 2, 3, 3))


def test_rows_equal_per_task_in_float32(model_and_losses, take_rows, row_error):
    model, losses_of = model_and_losses
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found = take_rows(TaskGradients(model, TASKS, "one_pass"), model, losses_of, batches)
    wanted = take_rows(TaskGradients(model, TASKS, "per_task"), model, losses_of, batches)
    assert row_error(found, wanted) < 1e-6


def test_rows_equal_per_task_in_float64(model_and_losses, take_rows, row_error):
    model, losses_of = model_and_losses
    model.double()
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found = take_rows(TaskGradients(model, TASKS, "one_pass"), model, losses_of, batches)
    wanted = take_rows(TaskGradients(model, TASKS, "per_task"), model, losses_of, batches)
    assert found.dtype == torch.float64
    assert row_error(found, wanted) < 1e-12


def test_accumulated_rows_equal_plain_backwards_over_one_large_batch(model_and_losses, take_rows, by_name, row_error):
    model, losses_of = model_and_losses
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    grads = TaskGradients(model, TASKS, "one_pass")
    found = take_rows(grads, model, losses_of, batches)
    wanted = by_name(grads, reference_jacobian(model, losses_of, join(batches), len(TASKS)))
    assert row_error(found, wanted) < 2e-6


def test_one_row_of_one_task_is_enough(make_llama, take_rows, row_error):
    model = make_llama()
    batches = [random_rows([2])]
    found = take_rows(TaskGradients(model, TASKS, "one_pass"), model, token_losses, batches)
    wanted = take_rows(TaskGradients(model, TASKS, "per_task"), model, token_losses, batches)
    assert row_error(found, wanted) < 1e-6
    assert found[[0, 1, 3]].count_nonzero() == 0


@pytest.mark.parametrize("ids", [(0, 0, 1, 1), (1, 0, 0, 1, 1)])
def test_rows_equal_backwards_of_the_same_forward_with_dropout_on(ids, make_llama, take_rows, by_name, row_error):
    model = make_llama(lora_dropout=0.3).train()
    rows = random_rows(ids)
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    torch.manual_seed(7)
    found = take_rows(grads, model, token_losses, [rows])

    torch.manual_seed(7)
    losses, _ = token_losses(model, rows, 2)
    wanted = {name: [] for name in grads.buffer.parameters}
    for task in range(2):
        model.zero_grad()
        losses[task].backward(retain_graph=True)
        for name, parameter in grads.buffer.parameters.items():
            wanted[name].append(parameter.grad)
    assert row_error(found, by_name(grads, {name: torch.stack(parts) for name, parts in wanted.items()})) < 1e-6


def test_rows_agree_under_bfloat16_autocast_with_the_backward_outside_it(model_and_losses, row_error):
    model, losses_of = model_and_losses
    rows = random_rows((0, 1, 1, 0, 1))
    found = {}
    for engine in ("one_pass", "per_task"):
        grads = TaskGradients(model, TASKS[:2], engine)
        with grads.rows(rows.ids):
            with torch.autocast("cpu", torch.bfloat16):
                losses, counts = losses_of(model, rows, 2)
            grads.backward(losses, counts)
        found[engine] = grads.jacobian
    assert found["one_pass"].dtype == torch.float32
    assert row_error(found["one_pass"], found["per_task"]) < 0.02  # bfloat16 keeps 8 bits


def test_rows_agree_for_a_model_in_bfloat16(make_llama, take_rows, row_error):
    model = make_llama().to(torch.bfloat16)
    batches = [random_rows((0, 1, 1, 0, 1))]
    found = take_rows(TaskGradients(model, TASKS[:2], "one_pass"), model, token_losses, batches)
    wanted = take_rows(TaskGradients(model, TASKS[:2], "per_task"), model, token_losses, batches)
    assert row_error(found, wanted) < 0.03


@pytest.mark.parametrize("lora", [True, False])
def test_activation_checkpointing_gives_the_same_rows(lora, make_llama, take_rows, row_error):
    model = make_llama(lora)
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    plain = take_rows(TaskGradients(model, TASKS, "one_pass"), model, token_losses, batches)
    model.train()
    # transformers renamed it: 5.23 warns about the old name, 5.0 has no other.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    found = take_rows(TaskGradients(model, TASKS, "one_pass", verify=True), model, token_losses, batches)
    assert row_error(found, plain) < 1e-6


def test_a_second_forward_inside_the_same_rows_adds_to_them(make_llama, row_error):
    model = make_llama()
    rows = random_rows((1, 0, 1))
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    with grads.rows(rows.ids):
        grads.backward(*token_losses(model, rows, 2))
        once = grads.buffer.rows.clone()
        grads.backward(*token_losses(model, rows, 2))
    assert row_error(grads.buffer.rows, 2 * once) < 1e-6
    assert row_error(grads.jacobian, once / grads.counts[:, None].float() * 2) < 1e-6


def test_two_forwards_of_one_loss_are_both_differentiated(make_llama, by_name, row_error):
    model = make_llama()
    rows, other = random_rows((1, 0, 1)), random_rows((1, 0, 1))

    def both(of, first, num_tasks):
        losses, counts = token_losses(of, first, num_tasks)
        return losses * token_losses(of, other, num_tasks)[0], counts

    grads = TaskGradients(model, TASKS[:2], "one_pass")
    with grads.rows(rows.ids):
        grads.backward(*both(model, rows, 2))
    assert row_error(grads.jacobian, by_name(grads, reference_jacobian(model, both, rows, 2))) < 2e-6


class Mixing(nn.Module):
    """Two linear layers with something between them."""

    def __init__(self, between):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.between = between
        self.last = nn.Linear(3, 1)

    def forward(self, x):
        return self.last(self.between(torch.tanh(self.first(x)))).squeeze(-1)


def over_batch(x):
    return (x - x.mean(0)) / x.std(0)


def two_losses(y, ids):
    return torch.stack([y[ids == task].square().mean() for task in range(2)])


def test_verify_passes_where_rows_do_not_interact(make_llama, take_rows, row_error):
    model = make_llama()
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    found = take_rows(TaskGradients(model, TASKS, "one_pass", verify=True), model, token_losses, batches)
    plain = take_rows(TaskGradients(model, TASKS, "one_pass"), model, token_losses, batches)
    assert row_error(found, plain) == 0


def test_verify_refuses_a_layer_that_mixes_rows_and_leaves_no_trace():
    model = Mixing(over_batch)
    private = nn.Parameter(torch.ones(()))
    ids = torch.tensor([0, 1, 0, 1, 1])
    grads = TaskGradients(model, ["qa", "anger"], "one_pass", private={"qa": [private]}, verify=True)
    with grads.rows(ids), pytest.raises(ValueError, match=r"task `qa` depends on rows of task `anger`.*per_task"):
        grads.backward(two_losses(model(torch.randn(5, 3)) * private, ids))
    assert grads.buffer.rows.count_nonzero() == 0
    assert all(p.grad is None for p in [*model.parameters(), private])


def test_verify_refuses_a_loss_that_mixes_rows_of_two_tasks():
    model = Mixing(nn.Identity())
    ids = torch.tensor([0, 0, 1])
    grads = TaskGradients(model, ["qa", "anger"], "one_pass", verify=True)
    with grads.rows(ids), pytest.raises(ValueError, match="task `anger` depends on rows of task `qa`"):
        y = model(torch.randn(3, 3))
        grads.backward(torch.stack([y[:2].square().mean(), (y[2] - y[0]).square()]))
    assert grads.buffer.rows.count_nonzero() == 0


def test_verify_waits_for_a_batch_with_more_than_one_task():
    model = Mixing(over_batch)
    grads = TaskGradients(model, ["qa", "anger"], "one_pass", verify=True)
    alone, mixed = torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1, 1])
    with grads.rows(alone):
        y = model(torch.randn(3, 3))
        grads.backward(torch.stack([y.square().mean(), y.new_zeros(())]))
    with grads.rows(mixed), pytest.raises(ValueError, match="depends on rows of task"):
        grads.backward(two_losses(model(torch.randn(4, 3)), mixed))


def test_verify_refuses_in_a_later_micro_batch_and_keeps_what_was_there():
    model = Mixing(nn.Identity())
    grads = TaskGradients(model, ["qa", "anger"], "one_pass", verify=True)
    alone, mixed = torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1, 1])
    x = torch.randn(7, 3)
    with grads.rows(alone):
        y = model(x[:3])
        grads.backward(torch.stack([y.square().mean(), y.new_zeros(())]))
    with grads.rows(mixed):
        grads.backward(two_losses(model(x[3:]), mixed))
    again = TaskGradients(model, ["qa", "anger"], "one_pass")
    with again.rows(alone):
        y = model(x[:3])
        again.backward(torch.stack([y.square().mean(), y.new_zeros(())]))
    with again.rows(mixed):
        again.backward(two_losses(model(x[3:]), mixed))
    assert torch.equal(grads.jacobian, again.jacobian)


def test_a_weight_used_outside_its_layer_is_refused_and_leaves_no_gradient():
    model = Mixing(nn.Identity())
    ids = torch.tensor([0, 1])
    grads = TaskGradients(model, ["qa", "anger"], "one_pass")
    with grads.rows(ids), pytest.raises(ValueError, match=r"`first.weight` outside its layer's forward.*per_task"):
        losses = two_losses(model(torch.randn(2, 3)), ids)
        grads.backward(losses + model.first.weight.square().sum() + model.last.weight.square().sum())
    assert all(p.grad is None for p in model.parameters())


class Gathering(nn.Module):
    """A layer on rows in another order than the batch, as experts see them."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.outer = nn.Linear(3, 1)

    def forward(self, x, ids):
        order = torch.tensor([3, 1, 0, 2])
        with task_rows(ids[order]):
            gathered = torch.tanh(self.inner(x[order]))
        return self.outer(gathered[order.argsort()]).squeeze(-1)


def test_a_module_that_gathers_rows_says_so_with_an_inner_context(row_error):
    model = Gathering()
    ids, x = torch.tensor([0, 0, 1, 1]), torch.randn(4, 3)
    found = {}
    for engine in ("one_pass", "per_task"):
        grads = TaskGradients(model, ["qa", "anger"], engine)
        with grads.rows(ids):
            grads.backward(two_losses(model(x, ids), ids))
        found[engine] = grads.jacobian
    assert row_error(found["one_pass"], found["per_task"]) < 1e-6


def test_outside_rows_the_model_is_untouched(make_llama):
    model = make_llama()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    grads = TaskGradients(model, TASKS, "one_pass")
    rows = random_rows((0, 1))
    with grads.rows(rows.ids):
        assert any("forward" in m.__dict__ for m in model.modules())
        grads.backward(*token_losses(model, rows, 4))
    grads.write(torch.ones(4))
    grads.zero()
    assert not any("forward" in m.__dict__ for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_an_exception_inside_rows_leaves_the_model_untouched(make_llama):
    model = make_llama()
    grads = TaskGradients(model, TASKS, "one_pass")
    with pytest.raises(RuntimeError, match="mine"), grads.rows(torch.tensor([0, 1])):
        raise RuntimeError("mine")
    assert not any("forward" in m.__dict__ for m in model.modules())
    with pytest.raises(ValueError, match="inside `with grads.rows"):
        grads.backward(token_losses(model, random_rows((0, 1)), 4)[0])


def test_a_wired_model_can_be_copied_and_pickled(make_llama, tmp_path):
    model = make_llama()
    grads = TaskGradients(model, TASKS, "one_pass")
    rows = random_rows((0, 1))
    with grads.rows(rows.ids):
        grads.backward(*token_losses(model, rows, 4))
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    for other in (copy.deepcopy(model), loaded):
        assert torch.equal(token_losses(other, rows, 4)[0], token_losses(model, rows, 4)[0])


def test_two_task_gradients_over_one_model_do_not_disturb_each_other(make_llama, row_error):
    model = make_llama()
    rows, other = random_rows((0, 1, 1)), random_rows((1, 0, 0))
    first, second = (TaskGradients(model, TASKS[:2], "one_pass") for _ in range(2))
    alone = TaskGradients(model, TASKS[:2], "one_pass")
    with alone.rows(rows.ids):
        alone.backward(*token_losses(model, rows, 2))
    for grads, batch in ((first, rows), (second, other)):
        with grads.rows(batch.ids):
            grads.backward(*token_losses(model, batch, 2))
    assert row_error(first.jacobian, alone.jacobian) == 0
    assert row_error(second.jacobian, alone.jacobian) > 0.1


def test_opening_the_rows_of_two_objects_at_once_is_refused():
    model = Mixing(nn.Identity())
    first, second = (TaskGradients(model, ["qa", "anger"], "one_pass") for _ in range(2))
    ids = torch.tensor([0, 1])
    with first.rows(ids):
        with pytest.raises(ValueError, match="`first`.*forward was replaced"), second.rows(ids):
            pass
        first.backward(two_losses(model(torch.randn(2, 3)), ids))
    assert first.jacobian.count_nonzero() > 0


def test_a_forward_that_someone_replaced_meanwhile_is_kept():
    model = Mixing(nn.Identity())
    grads = TaskGradients(model, ["qa", "anger"], "one_pass")
    model.first.forward = torch.relu
    with pytest.raises(ValueError, match="`first`.*forward was replaced"), grads.rows(torch.tensor([0, 1])):
        pass
    assert model.first.forward is torch.relu
    assert "forward" not in model.last.__dict__


def test_input_that_does_not_begin_with_the_rows_is_refused_by_name(make_bert):
    model = make_bert(lora=False)
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    rows = random_rows((0, 1))
    message = r"position_embeddings` got an input of shape \(1, 9\).*\(2,\) of the task ids.*per_task"
    with grads.rows(rows.ids), pytest.raises(ValueError, match=message):
        model(input_ids=rows.input_ids)  # its position ids are [1, seq]


def test_ids_of_another_length_than_the_batch_are_refused(make_llama):
    model = make_llama()
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    with grads.rows(torch.tensor([0, 1, 1])), pytest.raises(ValueError, match=r"\(3,\) of the task ids"):
        token_losses(model, random_rows((0, 1)), 2)


def test_evaluation_inside_rows_needs_no_ids(make_bert):
    model = make_bert()
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    with grads.rows(torch.tensor([0, 1])), torch.no_grad():
        losses, _ = class_losses(model, random_rows((0, 0, 1, 1, 1)), 2)
    assert losses.isfinite().all()
    assert grads.buffer.rows.count_nonzero() == 0
