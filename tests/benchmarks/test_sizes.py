import pytest
import torch

from benchmarks.sizes import SIZES
from benchmarks.workload import build_model


@pytest.mark.parametrize(("name", "billions"), [("gpu_0.5b", 0.494), ("gpu_1.5b", 1.544)])
def test_gpu_sizes_have_the_shape_they_are_named_after(name, billions):
    model = build_model(SIZES[name], torch.device("meta"))
    base = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n)
    assert base / 1e9 == pytest.approx(billions, rel=0.001)  # Qwen2.5 has biases of attention besides
    assert all(p.dtype == (torch.float32 if p.requires_grad else torch.bfloat16) for p in model.parameters())
    ranks = {p.shape[0] for n, p in model.named_parameters() if "lora_A" in n}
    assert ranks == {16}


def test_tied_weights_are_untied_where_they_are_trained():
    model = build_model(SIZES["gpu_0.5b"], torch.device("meta"), "full")
    assert model.lm_head.weight is not model.model.embed_tokens.weight
