"""Which blocks of a model are meant."""

import pytest
from models.sharing_cases import LORA, TASKS
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mtl_opt.errors import InputError
from mtl_opt.models import build_sharing, share


@pytest.mark.parametrize("layers", [0, True, [], [1, 1], [-1], "last", 1.5])
def test_layers_that_are_none_are_refused(layers):
    for name in ("task_attention", "mtan", "disentangled"):
        with pytest.raises(InputError, match="`layers` must be a whole number of last blocks"):
            build_sharing(name, {"layers": layers})


def test_layers_that_the_model_has_not_are_refused():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, num_hidden_layers=2, **sizes))
    for layers, message in ((3, "at most 2"), ([0, 2], "from 0 to 1, got 2")):
        with pytest.raises(ValueError, match=message):
            share(model, build_sharing("mtan", {"layers": layers}), TASKS, LORA)
