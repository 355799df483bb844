"""Heads on disk: they come back as they were, and heads of another run are refused."""

import pytest
import torch
from models.head_cases import SPECS, with_heads

from mtl_opt.errors import InputError
from mtl_opt.models.heads.files import load_heads

KINDS = ("encoder", "decoder")


@pytest.mark.parametrize("kind", KINDS)
def test_heads_come_back_from_disk(kind, tmp_path):
    model = with_heads(kind)
    model.save_pretrained(tmp_path)
    fresh = with_heads(kind)
    assert not torch.equal(fresh.heads[0].layers[1].weight, model.heads[0].layers[1].weight)
    load_heads(fresh.heads.by_task(), tmp_path)
    for name, value in model.heads.state_dict().items():
        assert torch.equal(fresh.heads.state_dict()[name], value)
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert "差" in (tmp_path / "heads.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"other": {"type": "regression"}}, "are for tasks"),
        ({"topic": {"type": "classification", "labels": ["b", "a"], "hidden": 8}}, "made for labels a, b"),
        ({"topic": {"type": "regression", "hidden": 8}}, "made for type classification"),
        ({"score": {"type": "regression", "pooling": "mean"}}, "made for pooling last"),
    ],
)
def test_heads_of_something_else_are_refused(changes, sentence, tmp_path):
    with_heads("encoder").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=sentence):
        load_heads(with_heads("encoder", specs=SPECS | changes).heads.by_task(), tmp_path)


def test_damaged_heads_are_refused_in_one_sentence(tmp_path):
    model = with_heads("encoder")
    model.save_pretrained(tmp_path)
    (tmp_path / "heads.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="No heads could be loaded"):
        load_heads(model.heads.by_task(), tmp_path)
    (tmp_path / "heads.json").unlink()
    with pytest.raises(InputError, match=r"heads\.json"):
        load_heads(model.heads.by_task(), tmp_path)
