"""One buffer holds every row; layers and parameters are slices of it."""

import pytest
import torch
from references.jacobian_reference import random_rows, token_losses
from torch import nn

from mtl_opt.gradients import TaskGradients
from mtl_opt.gradients.rows.columns import layer_of
from mtl_opt.gradients.rows.row_buffer import RowBuffer


@pytest.fixture
def buffer():
    shapes = {"emb.weight": (3, 2), "layers.0.a.weight": (2, 2), "norm.weight": (2,), "layers.0.b.bias": (3,)}
    filled = RowBuffer([(name, nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()], 3)
    filled.rows.copy_(torch.randn(3, 15))
    return filled


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("base_model.model.model.layers.11.mlp.up_proj.lora_A.default.weight", "base_model.model.model.layers.11"),
        ("model.layers.3.experts.7.weight", "model.layers.3"),
        ("0.weight", "0"),
        ("head.out.bias", "head.out"),
        ("scale", "scale"),
    ],
)
def test_a_layer_is_the_path_up_to_its_first_number(name, layer):
    assert layer_of(name) == layer


def test_parameters_of_a_layer_stand_side_by_side(buffer):
    assert buffer.layers == {"emb": slice(0, 6), "layers.0": slice(6, 13), "norm": slice(13, 15)}
    assert buffer.tensors["layers.0.b.bias"] == slice(10, 13)


def test_a_view_is_the_rows_of_one_parameter(buffer):
    view = buffer.view("layers.0.a.weight")
    assert view.shape == (3, 2, 2)
    view.zero_()
    assert buffer.rows[:, 6:10].count_nonzero() == 0
    assert buffer.rows.count_nonzero() == 3 * 11


def test_block_gramians_add_up_to_the_whole(buffer):
    for by in ("layer", "tensor"):
        torch.testing.assert_close(torch.stack(list(buffer.gramians(by).values())).sum(0), buffer.gramian())


def test_a_gramian_over_some_layers_is_that_of_their_columns(buffer):
    torch.testing.assert_close(buffer.gramian_over("last"), buffer.rows[:, 13:] @ buffer.rows[:, 13:].T)
    torch.testing.assert_close(buffer.gramian_over("emb"), buffer.rows[:, :6] @ buffer.rows[:, :6].T)
    both = torch.cat([buffer.rows[:, :6], buffer.rows[:, 13:]], 1)
    torch.testing.assert_close(buffer.gramian_over(["norm", "emb"]), both @ both.T)
    torch.testing.assert_close(buffer.gramian_over("all"), buffer.gramian())


def test_an_unknown_layer_or_block_is_refused(buffer):
    with pytest.raises(ValueError, match=r"among emb, layers.0, norm, got \['layers.9'\]"):
        buffer.gramian_over(["emb", "layers.9"])
    with pytest.raises(ValueError, match="`over` must name layers"):
        buffer.gramian_over([])
    with pytest.raises(ValueError, match="`by` must be 'layer' or 'tensor', got 'row'"):
        buffer.gramians("row")
    with pytest.raises(ValueError, match="one entry per layer or per tensor"):
        buffer.apply({"emb": torch.ones(3)})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(2), r"`weights` must be \[3\], one per task, got shape \(2,\)"),
        (torch.ones(()), r"`weights` must be \[3\], one per task, got shape \(\)"),
        ({"emb": torch.ones(3), "layers.0": torch.ones(1), "norm": torch.ones(3)}, r"must be \[3\].*shape \(1,\)"),
    ],
)
def test_weights_of_another_length_are_refused(buffer, weights, message):
    with pytest.raises(ValueError, match=message):
        buffer.apply(weights)


def test_weights_apply_to_all_columns_or_block_by_block(buffer):
    weights = torch.tensor([1.0, -2.0, 0.5])
    buffer.apply(weights)
    torch.testing.assert_close(buffer.combined, weights @ buffer.rows)
    for columns in (buffer.layers, buffer.tensors):
        blocks = {name: torch.randn(3) for name in columns}
        buffer.apply(blocks)
        wanted = torch.cat([blocks[name] @ buffer.rows[:, at] for name, at in columns.items()])
        torch.testing.assert_close(buffer.combined, wanted)


def test_the_gradient_is_handed_over_in_the_shape_and_dtype_of_each_parameter():
    parameters = [("a", nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16))), ("b", nn.Parameter(torch.zeros(2)))]
    buffer = RowBuffer(parameters, 2)
    assert buffer.rows.dtype == torch.float32
    buffer.combined.copy_(torch.arange(8.0))
    buffer.reached |= {"a", "b"}
    buffer.write_grad()
    assert parameters[0][1].grad.dtype == torch.bfloat16
    assert parameters[0][1].grad.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert parameters[1][1].grad.data_ptr() == buffer.combined[6:].data_ptr()


def test_one_float64_parameter_keeps_all_rows_in_float64():
    parameters = [("a", nn.Parameter(torch.zeros(2))), ("b", nn.Parameter(torch.zeros(2, dtype=torch.float64)))]
    assert RowBuffer(parameters, 2).rows.dtype == torch.float64


def test_rows_in_bfloat16_take_half_the_memory_and_round_to_three_digits(make_llama, row_error):
    model, rows = make_llama(), random_rows((0, 1, 2, 0))
    found, wanted = (TaskGradients(model, ["a", "b", "c"], "one_pass", buffer_dtype=d) for d in (torch.bfloat16, None))
    for grads in (found, wanted):
        with grads.rows(rows.ids):
            grads.backward(*token_losses(model, rows, 3))
    assert found.jacobian.dtype == torch.bfloat16
    assert row_error(found.jacobian.float(), wanted.jacobian) < 2**-8
    assert found.gramian().dtype == torch.float32
    torch.testing.assert_close(found.gramian(), found.jacobian.float() @ found.jacobian.float().T)
    weights = torch.tensor([1.0, -2.0, 0.5])
    found.write(weights)
    torch.testing.assert_close(found.buffer.combined, weights @ found.jacobian.float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("engine", ["one_pass", "per_task"])
def test_rows_on_the_cpu_are_those_on_the_gpu(engine, make_llama):
    model, rows = make_llama().cuda(), random_rows((0, 1, 2, 0))
    found, wanted = (TaskGradients(model, ["a", "b", "c"], engine, buffer_device=d) for d in ("cpu", None))
    for grads in (found, wanted):
        ids = rows.ids.cuda()
        batch = type(rows)(rows.input_ids.cuda(), rows.attention_mask.cuda(), rows.labels.cuda(), ids)
        with grads.rows(ids):
            grads.backward(*token_losses(model, batch, 3))
        grads.write(torch.tensor([1.0, -2.0, 0.5]))
    assert found.jacobian.device.type == "cpu"
    torch.testing.assert_close(found.jacobian, wanted.jacobian.cpu())
    torch.testing.assert_close(found.buffer.combined, wanted.buffer.combined)


def test_a_snapshot_costs_memory_only_where_there_is_something_to_keep(buffer):
    buffer.rows.zero_()
    assert buffer.snapshot() is None
    buffer.rows[0, 0] = 1
    buffer.restore(None)
    assert buffer.rows.count_nonzero() == 0
    buffer.rows[0, 0] = 1
    kept = buffer.snapshot()
    buffer.rows.zero_()
    buffer.restore(kept)
    assert buffer.rows.sum() == 1
