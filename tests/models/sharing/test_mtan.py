"""Masks on shared features: the identity at the start, those of each row's task afterwards."""

import pytest
import torch
from models.sharing_cases import LORA, TASKS, losses_of, make_batch, make_model
from references.sharing_reference import masked

from mtl_opt.batch import task_rows
from mtl_opt.errors import InputError
from mtl_opt.examples.tiny_llama import new_llama, train_tokenizer
from mtl_opt.models import build_sharing, share
from mtl_opt.models.sharing.mtan import TaskMask


@pytest.mark.parametrize("ids", [(0, 0, 1, 1), (1, 0, 1, 2)])
def test_a_mask_is_what_the_equation_says(ids):
    torch.manual_seed(0)
    mask = TaskMask(8, 4, TASKS)
    for weight in (*mask.up.weights, *mask.up.biases):
        torch.nn.init.normal_(weight)
    h = torch.randn(4, 5, 8)
    with task_rows(torch.tensor(ids)):
        torch.testing.assert_close(mask(h), masked(h, ids, mask))
        assert mask(h.double()).dtype == torch.float64


def test_training_begins_with_the_pretrained_model():
    tokenizer = train_tokenizer(["text"], vocab_size=270)
    build = lambda: new_llama(tokenizer, hidden_size=16, num_layers=4, num_heads=2, seed=0)  # noqa: E731
    batch = make_batch()
    wanted = losses_of(build(), batch)
    found = losses_of(share(build(), build_sharing("mtan", {"layers": [0, 3]}), TASKS, LORA), batch)
    assert torch.equal(found[0], wanted[0])


def test_masks_stand_in_the_chosen_blocks_alone():
    model = make_model("mtan", layers=[1, 2], bottleneck=5)
    found = [name for name, module in model.named_modules() if isinstance(module, TaskMask)]
    assert found == ["model.layers.1.task_mask", "model.layers.2.task_mask"]
    assert model.model.layers[1].task_mask.down.weights[0].shape == (5, 16)
    assert [n for n, m in make_model("mtan").named_modules() if isinstance(m, TaskMask)] == ["model.layers.3.task_mask"]


def test_a_bad_bottleneck_is_refused():
    with pytest.raises(InputError, match="`bottleneck` must be a whole number of at least 1, got 0"):
        build_sharing("mtan", {"bottleneck": 0})
