"""A model on meta has the names and shapes of the loaded one, and no weights."""

import pytest
import torch
from tiny_run import build_model

from mtl_opt.errors import InputError
from mtl_opt.models import LoraSettings, QuantizationSettings, file_bytes, load_model, model_on_meta


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=3), LoraSettings(target=("q_proj",), dora=True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_names_shapes_types_and_what_is_trained_are_those_of_the_loaded_model(folder, lora, dtype):
    def described(model):
        return {n: (p.shape, p.dtype, p.requires_grad) for n, p in model.named_parameters()}

    planned, quantized = model_on_meta(folder, lora=lora, dtype=dtype)
    assert described(planned) == described(load_model(folder, lora=lora, dtype=dtype))
    assert all(p.device.type == "meta" for p in planned.parameters())
    assert quantized == {}


def test_the_weights_to_be_quantised_are_those_that_bitsandbytes_quantises(folder):
    settings = {"lora": LoraSettings(), "quantization": QuantizationSettings(4)}
    planned, quantized = model_on_meta(folder, dtype=torch.float32, **settings)
    names = {name for name, p in planned.named_parameters() if id(p) in quantized}
    loaded = load_model(folder, **settings)
    assert names == {n for n, p in loaded.named_parameters() if type(p).__name__ == "Params4bit"}
    assert names


def test_a_wrong_target_is_refused_as_in_training(folder):
    with pytest.raises(InputError, match="`lora_target` names `q_prj`"):
        model_on_meta(folder, lora=LoraSettings(target=("q_prj",)), dtype=torch.float32)


def test_a_missing_configuration_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="`model_name_or_path`: no model could be read from"):
        model_on_meta(str(tmp_path), lora=None, dtype=torch.float32)


def test_files_are_weighed_where_they_are_and_unknown_elsewhere(folder, tmp_path):
    exact = sum(p.numel() * 4 for p in load_model(folder, lora=None).parameters())
    assert exact < file_bytes(folder) < exact + 4096  # and a header
    assert file_bytes(str(tmp_path)) is None
    assert file_bytes("nobody/no-such-model") is None
