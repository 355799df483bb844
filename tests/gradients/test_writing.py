"""What `write`, `write_vector` and `combine` put into `.grad`."""

import pytest
import torch
from references.jacobian_reference import random_rows, reference_jacobian, token_losses

from mtl_opt import Combiner, PCGrad
from mtl_opt.gradients import TaskGradients

TASKS = ("qa", "summary", "投诉")


def test_every_parameter_gets_the_weighted_sum_of_its_own_gradients(make_llama, take_rows):
    model, rows = make_llama(), random_rows((0, 2, 1, 0))
    wanted = reference_jacobian(model, token_losses, rows, 3)
    grads = TaskGradients(model, TASKS, "one_pass")
    take_rows(grads, model, token_losses, [rows])
    weights = torch.tensor([0.5, -1.0, 2.0])
    grads.write(weights)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, torch.einsum("t,t...->...", weights, wanted[name]))
        else:
            assert parameter.grad is None


def test_write_takes_one_weight_vector_per_block(read):
    model, grads = read
    blocks = {name: torch.randn(3) for name in grads.gramian(by="tensor")}
    rows = {name: grads.buffer.view(name).clone() for name in blocks}
    grads.write(blocks)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, torch.einsum("t,t...->...", blocks[name], rows[name]))


def test_write_vector_puts_each_column_where_it_belongs(read):
    model, grads = read
    grads.write_vector(torch.arange(31.0))
    for name, parameter in model.named_parameters():
        columns = grads.buffer.tensors[name]
        assert parameter.grad.flatten().tolist() == list(range(31))[columns]


@pytest.mark.parametrize("shape", [(1,), (), (3, 31), (30,)])
def test_a_vector_of_another_length_is_refused(read, shape):
    _, grads = read
    with pytest.raises(ValueError, match=r"`gradient` must be \[31\]"):
        grads.write_vector(torch.zeros(shape))


def test_combine_writes_what_the_combiner_makes_of_the_jacobian(read):
    model, grads = read
    wanted = PCGrad()(grads.jacobian)
    weights = grads.combine(PCGrad())
    torch.testing.assert_close(weights @ grads.jacobian, wanted)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in model.parameters()]), wanted)


def test_combine_gives_absent_tasks_to_no_combiner(small):
    class Recording(Combiner):
        def weights(self, gramian, losses=None, *, tasks=None):
            self.seen = (gramian.shape, losses.isfinite().all(), tasks, self.tasks)
            return 2 * gramian.diagonal()

    model, ids, losses = small
    grads, combiner = TaskGradients(model, TASKS, "one_pass"), Recording()
    with grads.rows(ids):
        grads.backward(losses(), torch.tensor([4, 0, 4]))
    weights = grads.combine(combiner)
    assert combiner.seen == ((2, 2), True, [0, 2], TASKS)
    torch.testing.assert_close(weights, 2 * grads.gramian().diagonal())
    assert weights[1] == 0


def test_a_combiner_of_ones_own_that_only_overrides_weights_works(read):
    class FirstOnly(Combiner):
        def weights(self, gramian, losses=None, *, tasks=None):
            step = self.enter(gramian, losses, tasks)
            return step.leave(torch.eye(len(step.tasks))[0])

    model, grads = read
    assert grads.combine(FirstOnly()).tolist() == [1, 0, 0]
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in model.parameters()]), grads.jacobian[0])


class SignVote:
    """A combiner without weights, and no relative of `Combiner`."""

    requires = "jacobian"
    over = "all"

    def bind(self, tasks):
        self.names = tuple(tasks)

    def __call__(self, jacobian, losses=None, *, tasks=None):
        self.seen = (jacobian.shape, losses.shape, tasks)
        return jacobian.sign().sum(0)


@pytest.mark.parametrize(("counts", "present"), [([2, 2, 2], [0, 1, 2]), ([2, 0, 2], [0, 2])])
def test_a_method_without_weights_writes_its_own_vector(counts, present, small):
    model, ids, losses = small
    grads, vote = TaskGradients(model, TASKS, "one_pass"), SignVote()
    with grads.rows(ids):
        grads.backward(losses(), torch.tensor(counts))
    assert grads.combine(vote) is None
    assert vote.seen == ((len(present), 31), (len(present),), present)
    wanted = grads.jacobian[present].sign().sum(0)
    assert torch.equal(torch.cat([p.grad.flatten() for p in model.parameters()]), wanted)


def test_a_combiner_gets_the_gramian_of_the_layers_it_asks_for(read):
    class LastLayer(Combiner):
        over = "last"

        def weights(self, gramian, losses=None, *, tasks=None):
            self.seen = self.enter(gramian, losses, tasks).gramian
            return torch.ones(3)

    _, grads = read
    combiner = LastLayer()
    grads.combine(combiner)
    torch.testing.assert_close(combiner.seen.float(), grads.gramian(by="layer")["2"])
