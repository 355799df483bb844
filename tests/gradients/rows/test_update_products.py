"""How rows lie to an update without weights: against the rows and the gradients themselves."""

import pytest
import torch
from torch import nn

from mtl_opt import TaskGradients
from mtl_opt.combiners import GradDrop, PCGrad, Scoped


def closed_step(engine="one_pass", **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    grads = TaskGradients(model, ["问答", "b", "c"], engine, **options)
    x, y, ids = torch.randn(9, 6), torch.randn(9), torch.arange(3).repeat(3)
    with grads.rows(ids):
        errors = (model(x).squeeze(1) - y) ** 2
        grads.backward(torch.zeros(3).index_add(0, ids, errors) / 3)
    return model, grads


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("combiner", [GradDrop(), Scoped(PCGrad(), by="tensor")], ids=["graddrop", "scoped"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_products_and_norm_are_those_of_the_written_gradient(combiner, dtype):
    model, grads = closed_step(buffer_dtype=dtype)
    grads.combine(combiner)
    products, norm = grads.buffer.update_products()
    written = gradient(model)
    torch.testing.assert_close(products, grads.jacobian.float() @ written)
    assert norm == pytest.approx(float(written.norm()))


def test_with_weights_they_are_the_gramian_times_the_weights():
    _, grads = closed_step()
    weights = grads.combine(PCGrad())
    torch.testing.assert_close(grads.buffer.update_products()[0], grads.gramian() @ weights)


def test_clipping_changes_length_and_no_angle():
    _, grads = closed_step()
    grads.combine(GradDrop())
    before, norm = grads.buffer.update_products()
    grads.clip(norm / 2)
    after, clipped = grads.buffer.update_products()
    assert clipped == pytest.approx(norm / 2, rel=1e-4)
    torch.testing.assert_close(after / clipped, before / norm, rtol=1e-4, atol=1e-6)


def test_an_engine_without_rows_has_none():
    _, grads = closed_step("two_pass")
    grads.combine(Scoped(PCGrad(), by="tensor"))
    assert grads.buffer.update_products() is None
