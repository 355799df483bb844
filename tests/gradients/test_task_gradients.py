"""The object a training loop holds: counts, absent tasks, reading, writing, and the order of calls."""

import copy
import weakref

import pytest
import torch
from references.jacobian_reference import join, random_rows, token_losses
from torch import nn

from mtl_opt import PCGrad, Sum
from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "投诉")
ENGINES = ("one_pass", "per_task")
MICRO_BATCHES = ((2, 0, 0, 1, 0, 2, 2), (0, 1, 0))


# --- counts and absent tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_losses_and_counts_are_those_of_one_large_batch(engine, make_llama, take_rows):
    model = make_llama()
    batches = [random_rows(ids) for ids in MICRO_BATCHES]
    grads = TaskGradients(model, TASKS, engine)
    take_rows(grads, model, token_losses, batches)
    losses, counts = token_losses(model, join(batches), 3)
    torch.testing.assert_close(grads.losses().float(), losses.detach())
    assert grads.counts.tolist() == counts.tolist()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_absent_task_has_a_zero_row_no_loss_and_no_weight(engine, make_llama, take_rows):
    model = make_llama()
    grads = TaskGradients(model, TASKS, engine)
    take_rows(grads, model, token_losses, [random_rows((2, 0, 2))])
    assert grads.present == [0, 2]
    assert grads.jacobian[1].count_nonzero() == 0
    assert grads.losses().isnan().tolist() == [False, True, False]
    assert grads.combine(Sum()).tolist() == [1.0, 0.0, 1.0]


def test_rows_without_labels_make_a_task_absent(small):
    model, ids, losses = small
    grads = TaskGradients(model, TASKS, "one_pass")
    with grads.rows(ids):
        grads.backward(losses(), torch.tensor([3, 0, 1]))
    assert grads.present == [0, 2]
    assert grads.jacobian[1].count_nonzero() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_the_value_of_an_absent_task_is_ignored(engine, small):
    model, ids, losses = small
    grads = TaskGradients(model, TASKS, engine)
    with grads.rows(ids):
        values = losses()
        grads.backward(torch.stack([values[0], values[0].detach() * torch.nan, values[2]]), torch.tensor([2, 0, 2]))
        grads.backward(losses(), torch.tensor([2, 2, 2]))
    assert grads.jacobian.isfinite().all()
    torch.testing.assert_close(grads.losses().float(), losses().detach())


@pytest.mark.parametrize("engine", ENGINES)
def test_without_counts_k_calls_give_the_mean_and_tasks_without_rows_are_absent(engine):
    model = nn.Linear(3, 1)
    grads = TaskGradients(model, TASKS, engine)
    x = torch.randn(4, 3)

    def call(rows, ids):
        ids = torch.tensor(ids)
        with grads.rows(ids):
            y = model(x[rows]).squeeze(-1)
            grads.backward(torch.stack([y[ids == t].sum() for t in range(3)]))

    call([0, 1], [0, 1])
    call([2], [0])
    found = grads.jacobian[:, :3]
    torch.testing.assert_close(found, torch.stack([(x[0] + x[2]) / 2, x[1], torch.zeros(3)]))
    assert grads.present == [0, 1]


def test_a_batch_without_any_label_leaves_the_step_open(small):
    model, ids, losses = small
    grads = TaskGradients(model, TASKS, "one_pass")
    with grads.rows(ids):
        grads.backward(losses(), torch.zeros(3))
        with pytest.raises(ValueError, match="no rows to read"):
            grads.gramian()
        grads.backward(losses())
    assert grads.present == [0, 1, 2]


def test_losses_in_bfloat16_are_averaged_without_rounding_the_counts(small):
    model, _, losses = small
    values = losses().bfloat16()
    grads = TaskGradients(model, TASKS, "per_task")
    grads.backward(values, torch.tensor([1001, 515, 3]))  # bfloat16 has neither 1001 nor 515
    torch.testing.assert_close(grads.losses().float(), values.float(), rtol=1e-6, atol=0)


# --- reading ----------------------------------------------------------------------------------------------------


def test_the_gramian_is_that_of_the_jacobian_whole_and_in_blocks(read):
    _, grads = read
    torch.testing.assert_close(grads.gramian(), grads.jacobian @ grads.jacobian.T)
    for by, names in (("layer", {"0", "2"}), ("tensor", {"0.weight", "0.bias", "2.weight", "2.bias"})):
        blocks = grads.gramian(by=by)
        assert set(blocks) == names
        torch.testing.assert_close(torch.stack(list(blocks.values())).sum(0), grads.gramian())


def test_reading_before_a_backward_is_refused():
    grads = TaskGradients(nn.Linear(2, 2), TASKS)
    for read_it in (grads.gramian, grads.losses, lambda: grads.jacobian, lambda: grads.write(torch.ones(3))):
        with pytest.raises(ValueError, match="There are no rows to read"):
            read_it()


def test_a_backward_after_reading_is_refused_until_the_next_step(small):
    model, _, losses = small
    grads = TaskGradients(model, TASKS, "per_task")
    grads.backward(losses())
    grads.gramian()
    with pytest.raises(ValueError, match=r"This step is closed .* `grads.zero\(\)`"):
        grads.backward(losses())
    grads.zero()
    grads.backward(losses())


# --- the step as a whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_training_with_sum_is_plain_training(engine, make_llama):
    model = make_llama()
    plain = copy.deepcopy(model)
    grads = TaskGradients(model, TASKS, engine)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, plain)]
    for _ in range(4):
        rows = random_rows((0, 2, 1, 0))
        with grads.rows(rows.ids):
            losses, counts = token_losses(model, rows, 3)
            grads.backward(losses, counts)
        grads.combine(Sum())
        optimizers[0].step()
        grads.zero()
        token_losses(plain, rows, 3)[0].sum().backward()
        optimizers[1].step()
        optimizers[1].zero_grad()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_graph_is_freed_after_the_backward(engine, make_llama):
    model, rows = make_llama(), random_rows((0, 1, 2))
    grads = TaskGradients(model, TASKS, engine)
    with grads.rows(rows.ids):
        losses, counts = token_losses(model, rows, 3)
        grads.backward(losses, counts)
        with pytest.raises(RuntimeError, match="second time"):
            grads.backward(losses, counts)


def test_ids_do_not_outlive_their_rows(small):
    model, ids, losses = small
    grads, ids = TaskGradients(model, TASKS, "one_pass"), ids.clone()
    alive = weakref.ref(ids)
    with grads.rows(ids):
        grads.backward(losses())
    del ids
    assert alive() is None


@pytest.mark.parametrize("engine", ENGINES)
def test_no_activation_outlives_its_step(engine, make_llama):
    model, alive = make_llama(), []
    model.base_model.model.model.layers[0].register_forward_hook(
        lambda _module, _args, output: alive.append(weakref.ref(output[0] if isinstance(output, tuple) else output))
    )
    grads = TaskGradients(model, TASKS, engine, verify=True)
    for _ in range(2):
        rows = random_rows((0, 1, 2))
        with grads.rows(rows.ids):
            losses, counts = token_losses(model, rows, 3)
            grads.backward(losses, counts)
        grads.combine(PCGrad())
        grads.zero()
        del losses
    assert len(alive) == 2
    assert all(activation() is None for activation in alive)


# --- refusals ---------------------------------------------------------------------------------------------------


def test_names_and_policies_that_do_not_exist_are_refused():
    for tasks in ([], ["qa", "qa"]):
        with pytest.raises(ValueError, match="`tasks` must be at least one name, each once"):
            TaskGradients(nn.Linear(2, 2), tasks)
    with pytest.raises(ValueError, match=r"`tasks` must be a sequence of names, got 'qa'"):
        TaskGradients(nn.Linear(2, 2), "qa")
    with pytest.raises(ValueError, match="`head_policy` must be 'task' or 'weighted', got 'sum'"):
        TaskGradients(nn.Linear(2, 2), TASKS, head_policy="sum")


def test_a_frozen_model_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        TaskGradients(nn.Linear(2, 2).requires_grad_(False), TASKS)


@pytest.mark.parametrize("engine", ["one_pass", "per_task"])
def test_with_nothing_shared_each_task_takes_its_own_gradient(engine):
    heads = nn.ModuleList(nn.Linear(2, 1) for _ in TASKS)
    private = {task: list(head.parameters()) for task, head in zip(TASKS, heads, strict=True)}
    grads = TaskGradients(heads, TASKS, engine, private=private, verify=True)
    x, ids = torch.randn(4, 2), torch.tensor([0, 0, 2, 2])
    with grads.rows(ids):
        losses = torch.stack([head(x[ids == t]).square().sum() for t, head in enumerate(heads)])
        grads.backward(losses, torch.tensor([2, 0, 2]))
    assert grads.combine(PCGrad()) is None
    assert grads.gramian().tolist() == [[0.0] * 3] * 3
    wanted = 2 * (x[:2] @ heads[0].weight.T + heads[0].bias).T @ x[:2]
    torch.testing.assert_close(heads[0].weight.grad, wanted)
    assert heads[1].weight.grad is None
    with pytest.raises(ValueError, match="no trainable shared parameter, which engine `two_pass` needs"):
        TaskGradients(heads, TASKS, "two_pass", private=private)


def test_a_model_wrapped_for_data_parallelism_is_refused(tmp_path):
    with pytest.raises(ValueError, match="wrapped in DataParallel: it would mix the tasks' rows"):
        TaskGradients(nn.DataParallel(nn.Linear(2, 2)), TASKS)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        with pytest.raises(ValueError, match="wrapped in DistributedDataParallel"):
            TaskGradients(wrapped, TASKS)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("engine", ENGINES)
def test_ids_of_unknown_tasks_are_refused(engine):
    grads = TaskGradients(nn.Linear(2, 2), TASKS, engine)
    with pytest.raises(ValueError, match="from 0 to 2, got 3"), grads.rows(torch.tensor([0, 3])):
        pass
