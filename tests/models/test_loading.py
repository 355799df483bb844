from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_run import build_model
from transformers import BertConfig, BertModel

from mtl_opt.errors import InputError
from mtl_opt.models import LoraSettings, load_base, load_model, load_tokenizer

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
IDS = torch.tensor([[1, 5, 9, 30]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("model"))


def test_full_fine_tuning_trains_everything(folder):
    model = load_model(folder, lora=None)
    assert not isinstance(model, PeftModel)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_adapters_stay_in_float32_on_a_bfloat16_base_also_when_loaded_again(folder, tmp_path: Path):
    model = load_model(folder, lora=LoraSettings(), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    for found in (model, load_model(folder, lora=LoraSettings(), dtype=torch.bfloat16, trained=tmp_path)):
        for name, parameter in found.named_parameters():
            assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name
            assert parameter.requires_grad == ("lora_" in name)


@pytest.mark.parametrize("lora", [LoraSettings(), None])
def test_saved_weights_come_back_bit_by_bit(folder, tmp_path: Path, lora):
    model = load_model(folder, lora=lora)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * parameter.requires_grad)
    model.save_pretrained(tmp_path)
    again = load_model(folder, lora=lora, trained=tmp_path)
    assert torch.equal(again.eval()(IDS).logits, model.eval()(IDS).logits)
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("load", [load_tokenizer, lambda name: load_model(name, lora=None)])
def test_what_is_no_model_is_one_sentence(tmp_path: Path, load):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for name in ("missing", "empty", "file"):
        with pytest.raises(InputError, match="`model_name_or_path`") as error:
            load(str(tmp_path / name))
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_broken_weights_are_one_sentence(folder, tmp_path: Path):
    for file in Path(folder).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="no model could be loaded"):
        load_model(str(tmp_path), lora=None)


@pytest.mark.parametrize("content", [None, b"torn"])
def test_missing_or_broken_adapters_are_one_sentence(folder, tmp_path: Path, content):
    load_model(folder, lora=LoraSettings()).save_pretrained(tmp_path)
    adapter = tmp_path / "adapter_model.safetensors"
    adapter.unlink()
    if content is not None:
        adapter.write_bytes(content)
    with pytest.raises(InputError, match="No adapter could be loaded"):
        load_model(folder, lora=LoraSettings(), trained=tmp_path)


def test_an_encoder_without_heads_is_refused(tmp_path: Path):
    config = BertConfig(vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="is an encoder, which sees the answer"):
        load_base(str(tmp_path / "bert"))
    assert load_base(str(tmp_path / "bert"), heads=True).config.model_type == "bert"
