"""What engine one_pass cannot honour it refuses, and the model is as before outside `rows`."""

import copy

import pytest
import torch
from references.jacobian_reference import class_losses, random_rows, token_losses
from torch import nn

from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "投诉", "anger")
MICRO_BATCHES = ((2, 0, 0, 1, 0, 2, 2), (0, 3, 0), (0, 0, 1, 1, 2, 2, 3, 3))


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
    with grads.rows(ids):
        y = model(torch.randn(3, 3))
        losses = torch.stack([y[:2].square().mean(), (y[2] - y[0]).square()])
        with pytest.raises(ValueError, match="task `anger` depends on rows of task `qa`"):
            grads.backward(losses)
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
    with grads.rows(ids):
        losses = two_losses(model(torch.randn(2, 3)), ids)
        losses = losses + model.first.weight.square().sum() + model.last.weight.square().sum()
        with pytest.raises(ValueError, match=r"`first.weight` outside its layer's forward.*per_task"):
            grads.backward(losses)
    assert all(p.grad is None for p in model.parameters())


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
    with pytest.raises(ValueError, match=r"inside `with grads.rows"):
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
        with pytest.raises(ValueError, match=r"`first`.*forward was replaced"), second.rows(ids):
            pass
        first.backward(two_losses(model(torch.randn(2, 3)), ids))
        with pytest.raises(ValueError, match=r"`first`.*forward was replaced"), first.rows(ids):
            pass
        first.backward(two_losses(model(torch.randn(2, 3)), ids))
    assert first.jacobian.count_nonzero() > 0


def test_a_forward_that_someone_replaced_meanwhile_is_kept():
    model = Mixing(nn.Identity())
    grads = TaskGradients(model, ["qa", "anger"], "one_pass")
    model.first.forward = torch.relu
    with pytest.raises(ValueError, match=r"`first`.*forward was replaced"), grads.rows(torch.tensor([0, 1])):
        pass
    assert model.first.forward is torch.relu
    assert "forward" not in model.last.__dict__


def test_input_that_does_not_begin_with_the_rows_is_refused_by_name():
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(3, 1))
    grads = TaskGradients(model, TASKS[:2], "one_pass")
    message = r"`1` \(Linear\) got an input of shape \(8, 3\).*\(2,\) of the task ids.*per_task"
    with grads.rows(torch.tensor([0, 1])), pytest.raises(ValueError, match=message):
        model(torch.randn(2, 4, 3))


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


def refusal(model):
    with pytest.raises(ValueError, match="per_task") as caught:
        TaskGradients(model, ["qa", "anger"], "one_pass")
    return str(caught.value)


def test_tied_weights_are_refused(make_llama):
    message = refusal(make_llama(lora=False, tied=True))
    assert "`model.embed_tokens.weight` is tied: layers `model.embed_tokens` and `lm_head` share it" in message


def test_a_tied_embedding_that_is_frozen_is_no_obstacle(make_llama):
    assert TaskGradients(make_llama(tied=True), TASKS, "one_pass").engine.name == "one_pass"


def test_dora_is_refused_by_one_pass_and_works_with_per_task(make_llama, take_rows):
    model = make_llama(use_dora=True)
    assert "lora_magnitude_vector" in refusal(model)
    assert "DoRA normalises" in refusal(model)
    grads = TaskGradients(model, TASKS, "auto")
    found = take_rows(grads, model, token_losses, [random_rows((0, 1, 2, 3))])
    assert grads.engine.name == "per_task"
    assert "DoRA" in grads.engine_reason
    magnitudes = [found[:, columns] for name, columns in grads.buffer.tensors.items() if "magnitude" in name]
    assert magnitudes
    assert all(rows.norm(dim=1).min() > 0 for rows in magnitudes)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.BatchNorm1d(3), "(BatchNorm1d) cannot be wired: batch norm mixes the rows of all tasks"),
        (nn.MultiheadAttention(4, 2), "holds parameters beside other layers"),
        (nn.Embedding(3, 3, max_norm=1.0), "no sum over rows"),
        (nn.Embedding(3, 3, scale_grad_by_freq=True), "no sum over rows"),
        (nn.Embedding(3, 3, sparse=True), "its gradient is sparse"),
        (nn.EmbeddingBag(3, 3), "more than one input"),
        (nn.Bilinear(3, 3, 3), "more than one input"),
        (nn.GRU(3, 3, batch_first=True), "a recurrent layer"),
    ],
)
def test_a_layer_that_may_mix_rows_is_refused(layer, reason):
    assert reason in refusal(nn.Sequential(nn.Linear(3, 3), layer))


def test_a_linear_layer_with_a_forward_of_its_own_is_refused():
    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) / x.mean(0)

    assert "changes the forward or the parameters of a linear layer" in refusal(Scaled(3, 3))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_a_linear_layer_with_parameters_behind_its_weight_is_refused():
    assert "changes the forward or the parameters" in refusal(torch.nn.utils.weight_norm(nn.Linear(3, 3)))  # noqa: TOR101
    assert "cannot be wired" in refusal(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))


def test_a_layer_with_shared_and_private_parameters_is_refused():
    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"holds private parameters beside shared ones.*per_task"):
        TaskGradients(layer, ["qa", "anger"], "one_pass", private={"qa": [layer.bias]})


def test_a_layer_whose_forward_was_replaced_is_refused():
    layer = nn.Linear(3, 3)
    layer.forward = torch.relu
    assert "its forward was replaced on the instance" in refusal(layer)


def test_auto_falls_back_to_per_task_and_says_why(make_llama):
    grads = TaskGradients(make_llama(lora=False, tied=True), TASKS, "auto")
    assert grads.engine.name == "per_task"
    assert "is tied" in grads.engine_reason
    assert TaskGradients(make_llama(), TASKS, "auto").engine.name == "one_pass"
