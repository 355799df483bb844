"""Selective sharing: the map, its groups, and the sentences for what is wrong with them."""

import pytest
import torch
from models.sharing_cases import GROUPED, TASKS, jacobian, make_batch, make_model

from mtl_opt import TaskGradients
from mtl_opt.errors import InputError
from mtl_opt.examples.tiny_llama import new_llama, train_tokenizer
from mtl_opt.models import LoraSettings, TaskOptions, build_sharing, private_parameters, share, task_losses
from mtl_opt.models.sharing import GroupLora, PrivateLora, SharedLora


def kinds(model):
    """Name the adapter of every layer."""
    return {p.removesuffix(".adapter"): type(m) for p, m in model.named_modules() if p.endswith(".adapter")}


def test_without_a_map_the_last_block_is_private():
    found = kinds(make_model("selective"))
    assert {kind for path, kind in found.items() if ".3." in path} == {PrivateLora}
    assert {kind for path, kind in found.items() if ".3." not in path} == {SharedLora}


def test_a_pattern_fits_whole_parts_of_a_name_and_the_last_one_wins():
    rules = {"layers.[01]": "private", "q_proj": "shared", "*.1.mlp.up_*": "shared", "layers.1.self_attn.q_proj": "组"}
    found = kinds(make_model("selective", map=rules, groups=GROUPED["groups"]))
    assert found["model.layers.0.self_attn.q_proj"] is SharedLora
    assert found["model.layers.0.self_attn.k_proj"] is PrivateLora
    assert found["model.layers.1.mlp.up_proj"] is SharedLora
    assert found["model.layers.1.mlp.down_proj"] is PrivateLora
    assert found["model.layers.1.self_attn.q_proj"] is GroupLora
    assert found["model.layers.2.self_attn.k_proj"] is SharedLora


@pytest.mark.parametrize("ids", [(0, 0, 1, 1, 2, 2), (2, 1, 0, 1, 2), (1, 1), (0, 2)])
def test_engines_agree_on_groups(ids):
    model, batch = make_model("selective", num_layers=2, **GROUPED), make_batch(ids)
    found, wanted = jacobian(model, batch, "one_pass"), jacobian(model, batch, "per_task")
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-6)


def test_a_group_is_shared_with_zero_rows_for_tasks_outside():
    model = make_model("selective", num_layers=2, map={"layers": "g"}, groups={"g": [["qa", "摘要"], ["anger"]]})
    assert list(private_parameters(model)) == ["anger"]
    grads = TaskGradients(model, TASKS, "one_pass", private=private_parameters(model))
    batch = make_batch((2, 0, 1, 1))
    with grads.rows(batch.task_ids):
        grads.backward(*task_losses(model, batch, len(TASKS)))
    norms = grads.jacobian.norm(dim=1)
    assert norms[0] > 0 < norms[1]
    assert norms[2] == 0


def test_groups_may_come_from_the_tasks():
    tokenizer = train_tokenizer(["a few words", "几个汉字"], vocab_size=270)
    model = new_llama(tokenizer, hidden_size=16, num_layers=2, num_heads=2, seed=0)
    options = {"qa": TaskOptions(group="问答"), "anger": TaskOptions(group="问答")}
    share(model, build_sharing("selective", {"map": {"*": "group"}}), TASKS, LoraSettings(rank=2, alpha=2), options)
    adapter = model.model.layers[0].mlp.up_proj.adapter
    assert adapter.members == ((0, 2), (1,))
    assert list(private_parameters(model)) == ["摘要"]


BAD = [
    ({"map": {"q_proj": "privat"}}, r"`map.q_proj` must be one of shared, private, group, got 'privat'\. Did you mean"),
    ({"map": {"q_proj": "g"}, "groups": {"h": [["qa"]]}}, "`map.q_proj` must be one of shared, private, group, h"),
    ({"map": []}, "`map` must be a mapping from patterns"),
    ({"groups": {"g": ["qa"]}}, r"`groups.g` must be a list of lists of tasks, got \['qa'\]"),
    ({"groups": {"g": [["qa"], ["qa"]]}}, "`groups.g` holds the task `qa` twice"),
    ({"groups": {"private": [["qa"]]}}, "the name `private` has a meaning of its own"),
    ({"groups": [["qa"]]}, "`groups` must be a mapping"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD)
def test_a_map_of_another_form_is_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        build_sharing("selective", arguments)


LATER = [
    ({"map": {"q_porj": "private"}}, r"the pattern `q_porj` matches no layer\. Did you mean `q_proj`"),
    ({"map": {"zzz": "private"}}, r"`zzz` matches no layer\. A layer is `model.layers.0"),
    ({"map": {"*": "group"}}, "`map` takes `group`, but no task has"),
    (
        {"map": {"*": "g"}, "groups": {"g": [["qa", "摘"]]}},
        r"`groups.g` names the unknown task `摘`\. Did you mean `摘要`",
    ),
    ({"map": {"*": "g"}, "groups": {"g": [["qa", "摘要"]]}}, "`groups.g` must hold every task, but `anger` is in none"),
]


@pytest.mark.parametrize(("arguments", "sentence"), LATER)
def test_a_map_that_does_not_fit_the_model_or_the_tasks_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_model("selective", num_layers=1, **arguments)
