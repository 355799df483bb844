"""MTL-LoRA: its start, and mixtures at a small temperature."""

import torch
from models.sharing_cases import LORA, TASKS, inputs, one_adapter
from torch import nn

from mtl_opt.batch import task_rows
from mtl_opt.models import build_sharing
from mtl_opt.models.sharing import LinearLayer, SharingContext


def test_mtl_lora_begins_at_the_base_model_with_mixtures_that_differ():
    layer = LinearLayer("up", nn.Linear(6, 5), 0, 1)
    model = nn.ModuleDict({"up": layer.module})
    build_sharing("mtl_lora", {}).apply(SharingContext(model, TASKS, LORA, (layer,)))
    adapter = model["up"].adapter
    ids, x = inputs((0, 1, 2))
    with task_rows(ids):
        assert not adapter(x).any()
    mixture = adapter.mixture([0, 1, 2]).detach()
    torch.testing.assert_close(mixture.sum(1), torch.ones(3))
    assert float(mixture.std(0).min()) > 1e-3  # equal ones would keep all second matrices equal for ever
    assert all(torch.equal(t, torch.eye(LORA.rank)) for t in adapter.task_transform)


def test_a_small_temperature_overflows_nowhere():
    adapter = one_adapter("mtl_lora", temperature=1e-3)
    for mixture in adapter.task_mixture:
        mixture.data = torch.tensor([50.0, -50.0, 49.0])
    assert adapter.mixture([0])[0].tolist() == [1, 0, 0]
