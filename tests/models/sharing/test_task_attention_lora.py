"""Private adapters on the attention of chosen blocks, found by name in several architectures."""

import pytest
import torch
import transformers
from models.sharing_cases import LORA, TASKS, stir
from tiny_architectures import ARCHITECTURES
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from mtl_opt import Sum, TaskGradients, task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import build_sharing, merge, private_parameters, products_of, share
from mtl_opt.models.sharing import AdaptedLinear, PrivateLora, SharedLora
from mtl_opt.models.sharing.parts.attention_heads import PrivateHeads
from mtl_opt.models.sharing.parts.blocks import attention_layers

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


MODELS = {
    "gpt2": (
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32)),
        {"attn.c_attn", "attn.c_proj"},
    ),
    "bert": (
        lambda: BertModel(BertConfig(**SIZES)),
        {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"},
    ),
    "qwen2": (
        lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=1)),
        {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_attention_is_found_by_name_and_made_private(kind):
    build, wanted = MODELS[kind]
    model = build()
    assert {layer.path.split(".1.")[1] for layer in attention_layers(model, [1])} == wanted
    share(model, build_sharing("task_attention", {"layers": [1]}), TASKS, LORA)
    kinds = {name.removesuffix(".adapter"): type(m) for name, m in model.named_modules() if name.endswith(".adapter")}
    for name, cls in kinds.items():
        private = ".1." in name and name.split(".1.")[1] in wanted
        assert cls is (PrivateLora if private else SharedLora), name
    ids = torch.tensor([2, 0, 1])
    tokens = torch.randint(0, 64, (3, 5), generator=torch.Generator().manual_seed(0))
    with task_rows(ids):
        assert model(input_ids=tokens)[0].isfinite().all()


def test_attention_is_private_even_where_other_layers_are_adapted():
    from dataclasses import replace

    model = MODELS["qwen2"][0]()
    share(model, build_sharing("task_attention", {"layers": 1}), TASKS, replace(LORA, target=("down_proj",)))
    found = {n.split("layers.")[1] for n, m in model.named_modules() if isinstance(m, PrivateLora)}
    assert found == {f"1.self_attn.{p}_proj.adapter" for p in "qkvo"}
    assert sum(isinstance(m, SharedLora) for m in model.modules()) == 2


def test_an_architecture_without_attention_is_refused():
    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4))
    with pytest.raises(
        InputError, match=r"no attention in block 1 of MambaForCausalLM.*not supported \(linear layers there: dt_proj"
    ):
        share(model, build_sharing("task_attention", {}), TASKS, LORA)


def test_recurrent_blocks_have_no_attention_and_the_others_are_named():
    def build():
        config = RecurrentGemmaConfig(**SIZES, num_key_value_heads=1, lru_width=16, attention_window_size=8)
        config.num_hidden_layers = 6
        return RecurrentGemmaForCausalLM(config)

    found = attention_layers(build(), [2, 5])
    assert {layer.path.split("layers.")[1] for layer in found} == {
        f"{block}.temporal_block.{name}_proj" for block in (2, 5) for name in "qkvo"
    }
    with pytest.raises(InputError, match=r"block 4 of RecurrentGemmaForCausalLM has no attention; .*blocks 2, 5\.$"):
        share(build(), build_sharing("task_attention", {"layers": 2}), TASKS, LORA)


def tiny(name):
    """Build an untrained model of an architecture, in float64 and without dropout."""
    family, sizes = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes, vocab_size=64, pad_token_id=0)
    kind = "LMHeadModel" if name == "gpt2" else "ForCausalLM"
    return getattr(transformers, family + kind)(config).double().eval()


GROUPED = {"new_decoder_architecture": True, "num_kv_heads": 2, "hidden_size": 32, "num_hidden_layers": 2}
OUTPUTS = {
    "llama": "self_attn.o_proj", "gpt2": "attn.c_proj", "gpt_neox": "attention.dense", "phi3": "self_attn.o_proj",
    "opt": "self_attn.out_proj", "bloom": "self_attention.dense", "falcon": "self_attention.dense",
    "recurrent_gemma": "temporal_block.o_proj",
}  # fmt: skip


def with_heads(name, **arguments):
    """Give each task two of the four heads of the last block, everything trained moved from its start."""
    model = tiny(name)
    share(model, build_sharing("task_attention", {"heads": 2, **arguments}), TASKS, LORA)
    stir(model)
    return model.double()


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_a_task_trains_moves_its_own_heads_and_no_other(name, monkeypatch):
    if name == "falcon":
        monkeypatch.setitem(ARCHITECTURES, "falcon", ("Falcon", {**GROUPED, "num_attention_heads": 4}))
    if name == "recurrent_gemma":
        sizes = {**ARCHITECTURES[name][1], "num_key_value_heads": 2}
        monkeypatch.setitem(ARCHITECTURES, name, ("RecurrentGemma", sizes))
    model, seen = with_heads(name), []
    (output,) = [m for path, m in model.named_modules() if path.endswith(OUTPUTS[name]) and isinstance(m, AdaptedLinear)
                 and isinstance(m.adapter, PrivateHeads)]  # fmt: skip
    output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    tokens, ids = torch.arange(1, 11).view(2, 5), torch.tensor([0, 1])

    def run():
        with task_rows(ids), torch.no_grad():
            return model(input_ids=tokens, use_cache=False).logits

    before, adapters = run(), [m for m in model.modules() if isinstance(m, PrivateHeads) and not m.inputs]
    with torch.no_grad():
        for adapter in adapters:
            adapter.task_heads[0].add_(torch.randn(adapter.task_heads[0].shape))
    after = run()
    change = (seen[1] - seen[0]).unflatten(-1, (4, 8)).abs().amax(dim=(1, 3))
    assert bool((change[0, 2:] > 1e-6).all())
    assert float(change[0, :2].max()) == 0.0 == float(change[1].max())
    assert float((after - before)[0].abs().max()) > 1e-6
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "phi3", "opt"])
@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0, 2, 0)])
def test_private_heads_take_the_gradients_of_a_backward_per_task(name, ids):
    rows, private = jacobian_of(with_heads(name), ids, "one_pass")
    wanted, own = jacobian_of(with_heads(name), ids, "per_task")
    torch.testing.assert_close(rows, wanted, rtol=1e-10, atol=1e-14)
    for one, other in zip(private, own, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
    assert all(float(one.abs().max()) > 0 for one in private)


def jacobian_of(model, ids, engine):
    """Take rows and private gradients of a step on the mean square of the logits of every task's rows."""
    own, ids = private_parameters(model), torch.tensor(ids)
    tokens = torch.arange(1, 31).view(6, 5)
    grads = TaskGradients(model, TASKS, engine, private=own, buffer_dtype=torch.float64)
    with grads.rows(ids):
        rows = model(input_ids=tokens, use_cache=False).logits.square().mean((1, 2))
        grads.backward(rows.new_zeros(3).index_add(0, ids, rows))
    jacobian = grads.jacobian.clone()
    grads.combine(Sum())
    return jacobian, [p.grad.clone() for group in own.values() for p in group]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "phi3", "opt"])
def test_private_heads_merge_into_a_plain_model_of_each_task(name):
    model = with_heads(name)
    tokens = torch.arange(1, 11).view(2, 5)
    for task in range(3):
        with task_rows(torch.full((2,), task)), torch.no_grad():
            wanted = model(input_ids=tokens, use_cache=False).logits
        plain = merge(tiny(name), products_of(model, task), torch.float64)
        with torch.no_grad():
            found = plain(input_ids=tokens, use_cache=False).logits
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # products are float32


@pytest.mark.parametrize(
    ("name", "heads", "message"),
    [
        ("llama", 1, "`heads` must be one of 2, got 1: the model has 4 query heads, 2 to a key and a value"),
        ("llama", 4, "`heads` must be one of 2, got 4"),
        ("gpt2", 4, "`heads` must be one of 1, 2, 3, got 4"),
        ("falcon", 1, "must be one of no number at all"),
        ("deepseek_v3", 1, r"no queries, keys, values and output of known names \(projections found: o_proj"),
    ],
)
def test_numbers_of_heads_that_cannot_be_are_refused(name, heads, message):
    with pytest.raises(ValueError, match=message):
        share(tiny(name), build_sharing("task_attention", {"heads": heads}), TASKS, LORA)
