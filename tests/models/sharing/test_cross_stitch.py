"""Cross-stitch units: the equation row by row, a plain adapter for one task, one product for a fixed task."""

import pytest
import torch
from models.sharing_cases import LORA, TASKS, make_model
from references.sharing_reference import stitched
from torch import nn

from mtl_opt.batch import task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import build_sharing
from mtl_opt.models.sharing import LinearLayer, SharedLora
from mtl_opt.models.sharing.cross_stitch import StitchedLora

LAYER = LinearLayer("layer", nn.Linear(6, 5), 0, 1)


def make(tasks=TASKS, own=0.9):
    torch.manual_seed(0)
    adapter = StitchedLora(LAYER, LORA, tasks, own)
    nn.init.normal_(adapter.lora_B.weight)
    return adapter


@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0, 2, 2)])
def test_a_row_gets_all_adapters_in_the_proportions_of_its_task(ids):
    adapter, x = make(), torch.randn(6, 4, 6)
    a, b = adapter.lora_A.weight.split(LORA.rank), adapter.lora_B.weight.split(LORA.rank, 1)
    with task_rows(torch.tensor(ids)):
        found = adapter(x)
    torch.testing.assert_close(found, adapter.scaling * stitched(x, ids, adapter.stitch, list(zip(a, b, strict=True))))
    for task in range(3):
        a, b = adapter.lora_of(task)
        rows = torch.tensor(ids) == task
        torch.testing.assert_close(found[rows], x[rows] @ a.T @ b.T)


def test_tokens_of_packed_rows_are_routed_one_by_one():
    adapter, x = make(), torch.randn(1, 6, 6)
    ids = torch.tensor([[0, 0, 2, 2, 1, 0]])
    with task_rows(ids):
        packed = adapter(x)
    with task_rows(ids[0]):
        torch.testing.assert_close(adapter(x[0]), packed[0])


def test_one_task_is_a_plain_adapter():
    adapter, x = make(("摘要",)), torch.randn(2, 4, 6)
    plain = SharedLora(LAYER, LORA)
    plain.lora_A.weight, plain.lora_B.weight = adapter.lora_A.weight, adapter.lora_B.weight
    with task_rows(torch.zeros(2, dtype=torch.long)):
        torch.testing.assert_close(adapter(x), plain(x))


def test_units_begin_near_the_identity_and_are_reported():
    adapter = make(own=0.7)
    start = torch.stack(list(adapter.stitch))
    torch.testing.assert_close(start.diagonal(), torch.full((3,), 0.7))
    torch.testing.assert_close(start.sum(1), torch.ones(3))
    found = make_model("cross_stitch").sharing.report()
    assert 0.8 < found["stitch_摘要_摘要"] < 1.0
    assert abs(found["stitch_摘要_qa"] - 0.05) < 0.1


@pytest.mark.parametrize("own", [-0.1, 1.5, "half", True])
def test_shares_that_are_none_are_refused(own):
    with pytest.raises(InputError, match="`own` must be"):
        build_sharing("cross_stitch", {"own": own})
