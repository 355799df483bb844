"""Adapters that mix matrices or experts, each against a literal version and against plain LoRA."""

import itertools

import pytest
import torch
from models.sharing_cases import GROUPED, LORA, TASKS, inputs, jacobian, make_batch, make_model, one_adapter, stir
from references import experts_reference as literal
from torch import nn

from mtl_opt import Sum, TaskGradients
from mtl_opt.batch import TaskBatch, task_rows
from mtl_opt.errors import InputError
from mtl_opt.models import SHARING, LoraSettings, build_sharing, private_parameters, share, task_losses
from mtl_opt.models.sharing import LinearLayer, SharedLora, SharingContext

CASES = [
    ("mtl_lora", {}, literal.mtl_lora),
    ("mtl_lora", {"transform": "diagonal", "num_b": 2, "temperature": 0.01}, literal.mtl_lora),
    ("hydra", {}, literal.hydra),
    ("experts", {}, literal.experts),
    ("experts", {"private_experts": 2}, literal.experts),
    ("experts", {"gate": "token", "num_experts": 3}, literal.experts),
    ("experts", {"gate": "token", "private_experts": 1}, literal.experts),
    ("sparse_experts", {}, literal.sparse_experts),
    ("sparse_experts", {"top_k": 1}, literal.sparse_experts),
    ("sparse_experts", {"num_experts": 3, "top_k": 3}, literal.sparse_experts),
    ("sparse_experts", {"dispatch": "grouped"}, literal.sparse_experts),
    ("sparse_experts", {"dispatch": "grouped", "top_k": 1}, literal.sparse_experts),
    ("sparse_experts", {"dispatch": "grouped", "num_experts": 3, "top_k": 3}, literal.sparse_experts),
]
NAMES = ["selective", "mtl_lora", "hydra", "experts", "sparse_experts"]
IDS = [(0, 0, 1, 1, 2, 2), (2, 0, 1, 0), (1, 1), ((0, 0, 2, 2, 2), (1, 2, 2, 0, 0))]


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize(("name", "arguments", "of_token"), CASES)
def test_output_and_gradients_are_those_of_the_literal_version(name, arguments, of_token, ids):
    adapter = one_adapter(name, **arguments)
    ids, x = inputs(ids)
    with task_rows(ids):
        y = adapter(x)
    wanted = literal.every_token(x, ids, of_token, adapter)
    torch.testing.assert_close(y, wanted)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    leaves = [x, *adapter.parameters()]
    for a, b in zip(*(torch.autograd.grad(out, leaves, g, allow_unused=True) for out in (y, wanted)), strict=True):
        torch.testing.assert_close(*(torch.zeros(()) if v is None else v for v in (a, b)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "arguments", "of_token"), CASES)
def test_the_matrices_of_a_task_give_what_the_adapter_adds(name, arguments, of_token):  # noqa: ARG001
    adapter = one_adapter(name, **arguments)
    fixed = name == "mtl_lora" or (name == "experts" and arguments.get("gate") != "token")
    for task in range(len(TASKS)):
        found = adapter.lora_of(task)
        assert (found is not None) == fixed
        if found is not None:
            ids, x = inputs((task, task))
            with task_rows(ids):
                torch.testing.assert_close(x @ found[0].T @ found[1].T, adapter(x))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mtl_lora", {"num_b": 1}),
        ("hydra", {"num_b": 1}),
        ("experts", {"num_experts": 1}),
        ("experts", {"num_experts": 1, "gate": "token"}),
    ],
)
def test_with_one_of_everything_it_is_plain_lora(name, arguments):
    adapter = one_adapter(name, ("only",), **arguments)
    if name == "mtl_lora":
        adapter.task_transform[0].data = torch.eye(LORA.rank)
    plain = SharedLora(LinearLayer("up", nn.Linear(6, 5), 0, 1), LORA)
    plain.lora_A.weight.data = adapter.lora_A.weight.data[: LORA.rank]
    plain.lora_B.weight.data = adapter.lora_B.weight.data
    ids, x = inputs((0, 0, 0))
    with task_rows(ids):
        torch.testing.assert_close(adapter(x), plain(x))


@pytest.mark.parametrize("dispatch", ["masked", "grouped"])
def test_equal_sparse_experts_are_plain_lora(dispatch):
    adapter = one_adapter("sparse_experts", dispatch=dispatch)
    a, b = literal.expert_of(adapter, 0)
    with torch.no_grad():
        for e in range(1, 4):
            for own, first in zip(literal.expert_of(adapter, e), (a, b), strict=True):
                own.copy_(first)
    ids, x = inputs((0, 1, 2))
    with task_rows(ids):
        torch.testing.assert_close(adapter(x), x @ a.T @ b.T * adapter.scaling)


@pytest.mark.parametrize("name", ["mtl_lora", "experts"])
def test_tasks_with_equal_private_parameters_get_the_same(name):
    adapter = one_adapter(name)
    own = adapter.task_parameters()
    for group in itertools.islice(own.values(), 1, None):
        for parameter, first in zip(group, own[TASKS[0]], strict=True):
            parameter.data = first.data.clone()
    _, x = inputs((0, 0, 0, 0, 0, 0))
    found = []
    for ids in ((0, 0, 0, 0, 0, 0), (2, 0, 1, 1, 0, 2), (0, 0, 1, 1, 2, 2)):
        with task_rows(torch.tensor(ids)):
            found.append(adapter(x))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("name", ["mtl_lora", "experts"])
def test_dropout_of_a_task_is_its_own(name):
    layer = LinearLayer("up", nn.Linear(6, 5), 0, 1)
    model = nn.ModuleDict({"up": layer.module})
    from mtl_opt.models import TaskOptions

    context = SharingContext(model, TASKS, LORA, (layer,), {"摘要": TaskOptions(dropout=1.0)})
    build_sharing(name, {}).apply(context)
    adapter = model["up"].adapter
    stir(adapter)
    ids, x = inputs((0, 1, 2))
    with task_rows(ids):
        y, full = adapter.train()(x), adapter.eval()(x)
    assert not y[1].any()
    torch.testing.assert_close(y[[0, 2]], full[[0, 2]])


def other_architecture(kind):
    """Build a tiny GPT-2 (Conv1D) or BERT (with a pooler, which sees a row and no tokens)."""
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=260, n_embd=16, n_layer=2, n_head=2, n_positions=16, attn_pdrop=0.0,
                            resid_pdrop=0.0, embd_pdrop=0.0)  # fmt: skip
        return GPT2LMHeadModel(config)
    config = BertConfig(vocab_size=260, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=24, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip
    return BertModel(config)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_the_engines_agree_on_other_architectures(kind, name):
    torch.manual_seed(0)
    model = share(other_architecture(kind), build_sharing(name, {}), TASKS, LORA)
    stir(model)
    batch = make_batch((2, 0, 1, 0))
    found, wanted = jacobian(model, batch, "one_pass"), jacobian(model, batch, "per_task")
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*((name, {}) for name in NAMES), ("experts", {"gate": "token", "private_experts": 1}), ("selective", GROUPED)],
)
def test_the_engines_agree_on_packed_rows(name, arguments):
    model = make_model(name, num_layers=2, **arguments)
    tokens = torch.randint(1, 250, (2, 9), generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[0] * 4 + [2] * 5, [1] * 3 + [0] * 3 + [1] * 3])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 0, 1, 2, 0, 1, 2]])
    labels = torch.where(positions == 0, -100, tokens)
    batch = TaskBatch(tokens, torch.ones_like(tokens), labels, ids, positions)
    found, wanted = jacobian(model, batch, "one_pass"), jacobian(model, batch, "per_task")
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("selective", {}), ("selective", GROUPED), ("mtl_lora", {}), ("experts", {"private_experts": 1})],
)
@pytest.mark.parametrize("engine", ["one_pass", "per_task"])
def test_an_absent_task_does_not_move(name, arguments, engine):
    model = make_model(name, num_layers=2, **arguments)
    own = private_parameters(model)
    grads = TaskGradients(model, TASKS, engine, private=own)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.5)

    def step(ids):
        batch = make_batch(ids)
        with grads.rows(batch.task_ids):
            grads.backward(*task_losses(model, batch, len(TASKS)))
        grads.combine(Sum())
        optimizer.step()
        grads.zero()

    step((0, 1, 2))  # momentum for everyone
    before = [p.detach().clone() for p in own["摘要"]]
    others = [p.detach().clone() for task, group in own.items() if task != "摘要" for p in group]
    for _ in range(3):
        step((0, 2, 2))
    assert all(torch.equal(p, b) for p, b in zip(own["摘要"], before, strict=True))
    assert before
    moved = [p for task, group in own.items() if task != "摘要" for p in group]
    assert all(not torch.equal(p, b) for p, b in zip(moved, others, strict=True))


@pytest.mark.parametrize(("name", "arguments"), [("mtl_lora", {}), ("experts", {}), ("selective", {})])
def test_private_gradients_are_bitwise_the_same_beside_other_rows_of_the_same_shape(name, arguments):
    def of_middle(seed):
        model = make_model(name, num_layers=2, **arguments)
        kept, batch = make_batch((0, 0, 1, 1, 2, 2)), make_batch((0, 0, 1, 1, 2, 2), seed=seed)
        batch.input_ids[2:4], batch.labels[2:4] = kept.input_ids[2:4], kept.labels[2:4]
        grads = TaskGradients(model, TASKS, "one_pass", private=private_parameters(model))
        with grads.rows(batch.task_ids):
            grads.backward(*task_losses(model, batch, len(TASKS)))
        grads.combine(Sum())
        return [p.grad.clone() for p in private_parameters(model)["摘要"]]

    assert all(torch.equal(a, b) for a, b in zip(of_middle(7), of_middle(8), strict=True))


BAD = [
    ("mtl_lora", {"num_b": 0}, "`num_b` must be a whole number of at least 1, got 0"),
    ("mtl_lora", {"temperature": 0}, "`temperature` must be a number above 0, got 0"),
    ("mtl_lora", {"transform": "none"}, "`transform` must be one of full, diagonal, got 'none'"),
    ("hydra", {"num_b": True}, "`num_b` must be a whole number"),
    ("experts", {"num_experts": -1}, "`num_experts` must be a whole number of at least 1, got -1"),
    ("experts", {"gate": "row"}, "`gate` must be one of task, token, got 'row'"),
    ("experts", {"private_experts": 1.5}, "`private_experts` must be a whole number of at least 0, got 1.5"),
    ("sparse_experts", {"num_experts": 1}, "`num_experts` must be a whole number of at least 2, got 1"),
    ("sparse_experts", {"top_k": 5}, "`top_k` must be at most `num_experts`, 4, got 5"),
    ("sparse_experts", {"balance_loss": -1}, "`balance_loss` must be a number of at least 0, got -1"),
    ("sparse_experts", {"z_loss": float("nan")}, "`z_loss` must be a number of at least 0, got nan"),
]


@pytest.mark.parametrize(("name", "arguments", "sentence"), BAD)
def test_bad_arguments_are_refused_in_one_sentence(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        build_sharing(name, arguments)


def test_every_name_is_described():
    for name in NAMES:
        assert SHARING[name].summary
        assert "20" in SHARING[name].paper  # a year


def test_rank_and_scale_follow_the_settings():
    lora = LoraSettings(rank=4, alpha=2, rslora=True)
    for name, shape in (("mtl_lora", (4, 6)), ("experts", (16, 6)), ("hydra", (7, 6))):
        adapter = one_adapter(name, lora=lora)
        assert adapter.lora_A.weight.shape == shape
        assert adapter.scaling == 1.0
