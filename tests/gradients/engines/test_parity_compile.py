"""Engine per_task on a compiled model: the rows are those of the model as it stands."""

import pytest
import torch
from references.jacobian_reference import random_rows, token_losses

from mtl_opt.gradients import TaskGradients
from mtl_opt.models import compile_model, enable_checkpointing


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # dynamo asks
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor uses it
@pytest.mark.parametrize(
    ("backend", "checkpointed"),
    [
        ("aot_eager", False),
        pytest.param("aot_eager", True, marks=pytest.mark.slow),
        pytest.param("inductor", False, marks=pytest.mark.slow),
    ],
)
def test_rows_of_a_compiled_model_equal_those_of_the_plain_one(backend, checkpointed, make_llama, take_rows, row_error):
    model, batches = make_llama().train(), [random_rows((0, 1, 1, 0)), random_rows((1, 1, 0, 0))]
    names = [name for name, _ in model.named_parameters()]
    wanted = take_rows(TaskGradients(model, ["qa", "anger"], "per_task"), model, token_losses, batches)
    if checkpointed:
        enable_checkpointing(model)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compile_model(model, backend)
    found = take_rows(TaskGradients(model, ["qa", "anger"], "per_task"), model, token_losses, batches)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert row_error(found, wanted) < 1e-5
    assert [name for name, _ in model.named_parameters()] == names
