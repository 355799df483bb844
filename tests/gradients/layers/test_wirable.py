"""Known layers are recognised by type or name, without importing the libraries they come from."""

import pytest
import torch
from torch import nn

from mtl_opt.gradients import TaskGradients
from mtl_opt.gradients.layers.wirable import is_conv1d, is_known, mixes_tokens, why_not


def conv1d():
    from transformers.pytorch_utils import Conv1D

    return Conv1D(5, 3)


@pytest.mark.parametrize(
    ("layer", "known", "mixing"),
    [
        (nn.Linear(3, 3), True, False),
        (nn.Embedding(3, 3), True, False),
        (nn.RMSNorm(3), True, False),
        (conv1d(), True, False),
        (nn.Conv2d(3, 3, 1), True, True),
        (nn.GroupNorm(1, 3), True, True),
        (type("LlamaRMSNorm", (nn.Module,), {})(), False, False),
        (type("Mine", (nn.Module,), {"forward": lambda _, x: x})(), False, True),
    ],
)
def test_what_is_known_of_a_layer(layer, known, mixing):
    assert is_known(layer) is known
    assert mixes_tokens(layer) is mixing


def test_a_linear_layer_that_calls_itself_conv1d_is_a_linear_layer():
    assert not is_conv1d(type("Conv1D", (nn.Linear,), {"nf": 3})(3, 3))


def test_an_optional_input_without_a_plain_default_is_refused():
    mine = type("Mine", (nn.Module,), {"forward": lambda _, x, mask=None: (x, mask)})()
    assert why_not(mine, []) == "its forward takes more than one input"


@pytest.mark.parametrize("trained", [("weight", "bias"), ("weight",), ("bias",)])
def test_rows_of_conv1d_equal_per_task(trained, row_error):
    layer, x = conv1d().double(), torch.randn(5, 4, 3, dtype=torch.float64)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name in trained)
    found = []
    for engine in ("one_pass", "per_task"):
        for ids in (torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 0, 1, 1])):
            grads = TaskGradients(layer, ["qa", "anger"], engine)
            with grads.rows(ids):
                y = layer(x[: len(ids)]).square()
                grads.backward(torch.stack([y[ids == task].mean() for task in range(2)]))
            found.append(grads.jacobian)
    assert row_error(found[0], found[2]) < 1e-12
    assert row_error(found[1], found[3]) < 1e-12


@pytest.mark.parametrize("default", [{}, {"gate": None}])
def test_a_norm_with_a_second_input_is_refused(default):
    class GatedRMSNorm(nn.RMSNorm):
        if default:

            def forward(self, x, gate=None):
                return super().forward(x) * gate
        else:

            def forward(self, x, gate):
                return super().forward(x) * gate

    assert why_not(GatedRMSNorm(3), ["weight"]) == "its forward takes more than one input"


def test_the_experts_of_a_mixture_are_refused():
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads))
    with pytest.raises(ValueError, match=r"`model.layers.0.mlp.experts` \(MixtralExperts\) cannot be wired.*per_task"):
        TaskGradients(model, ["qa", "anger"], "one_pass")
