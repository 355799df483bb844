"""Putting heads on a backbone, and which heads it cannot carry."""

import pytest
from models.head_cases import SPECS, TEXT, decoder, with_heads

from mtl_opt.errors import InputError
from mtl_opt.models import (
    put_heads,
)


def test_a_whole_model_leaves_an_output_layer_that_nobody_asks_frozen():
    assert not put_heads(decoder(), SPECS, "tiny").base.lm_head.weight.requires_grad
    assert put_heads(decoder(), SPECS | TEXT, "tiny").base.lm_head.weight.requires_grad


@pytest.mark.parametrize(
    ("kind", "specs", "sentence"),
    [
        ("encoder", {"a": None}, "task `a` has no head"),
        ("encoder", {"a": {"type": "lm"}}, "needs a causal language model"),
        ("decoder", {"a": {"type": "regression", "pooling": "cls"}}, "has seen nothing else"),
        ("encoder", {"a": {"type": "classification", "labels": ["x"]}}, "`heads.a`: `labels` must be at least two"),
    ],
)
def test_heads_that_a_model_cannot_carry_are_refused(kind, specs, sentence):
    with pytest.raises(InputError, match=sentence):
        with_heads(kind, specs=specs)
