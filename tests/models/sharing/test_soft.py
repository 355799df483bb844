"""Penalties between adapters against the updates they are of, formed whole."""

import pytest
import torch
from models.sharing_cases import LORA, TASKS, make_model
from references.sharing_reference import distance, nuclear, update

from mtl_opt.errors import InputError
from mtl_opt.examples.tiny_llama import new_llama, train_tokenizer
from mtl_opt.models import LoraSettings, TaskOptions, build_sharing, share
from mtl_opt.models.sharing.soft import StrengthSchedule


def gradients(term, model):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(term, parameters)


def updates_of(model):
    return [[update(adapter, task) for task in range(len(TASKS))] for adapter in model.sharing.adapters]


def test_the_distance_and_its_gradient_are_those_of_whole_updates():
    model = make_model("soft", strength=0.3)
    wanted = sum(distance(updates, 0.3) for updates in updates_of(model))
    found = model.sharing.penalty(1, 10)
    torch.testing.assert_close(found, 2 * wanted)  # each pair once for either task
    for a, b in zip(gradients(found, model), gradients(wanted, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_the_trace_norm_and_its_gradient_are_those_of_whole_updates():
    model = make_model("soft", penalty="trace_norm", strength=0.3)
    wanted = sum(nuclear(updates, [0.3] * 3) for updates in updates_of(model))
    found = model.sharing.penalty(1, 10)
    torch.testing.assert_close(found, wanted)
    for a, b in zip(gradients(found, model), gradients(wanted, model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def fresh(options, lora=LORA, **arguments):
    tokenizer = train_tokenizer(["text"], vocab_size=270)
    model = new_llama(tokenizer, hidden_size=16, num_layers=1, num_heads=2, seed=0)
    return share(model, build_sharing("soft", arguments), TASKS, lora, options)


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_equal_updates_are_at_no_distance_and_zero_ones_have_no_gradient(penalty):
    model = fresh({}, penalty=penalty)
    term = model.sharing.penalty(1, 10)
    assert term.item() == 0
    assert all(not bool(g.any()) for g in gradients(term, model))
    with torch.no_grad():
        for adapter in model.sharing.adapters:
            for task in range(3):
                adapter.task_A[task].copy_(adapter.task_A[0])
                adapter.task_B[task].fill_(0.1)
    if penalty == "l2":
        assert abs(model.sharing.penalty(1, 10).item()) < 1e-6


def test_each_task_is_pulled_by_its_own_strength():
    torch.manual_seed(0)
    model = fresh({"摘要": TaskOptions(penalty=0.5), "qa": TaskOptions(penalty=0.0)}, strength=0.1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    adapter = model.sharing.adapters[0]
    found = torch.autograd.grad(model.sharing.penalty(1, 10), [*adapter.task_B], allow_unused=True)
    assert found[0] is None
    updates = [update(adapter, task) for task in range(3)]
    for task, strength in ((1, 0.5), (2, 0.1)):
        towards = 2 * updates[task] - sum(updates[j] for j in range(3) if j != task)
        wanted = strength / 2 * towards @ (adapter.task_A[task] * adapter.scaling).T
        torch.testing.assert_close(found[task], wanted, rtol=1e-4, atol=1e-4)


def test_absent_tasks_are_held_fixed():
    model = make_model("soft")
    model.sharing.present = [0, 2]
    adapter = model.sharing.adapters[0]
    for penalty in ("l2", "trace_norm"):
        model.sharing.distance = build_sharing("soft", {"penalty": penalty}).distance
        found = torch.autograd.grad(model.sharing.penalty(1, 10), [*adapter.task_A], allow_unused=True)
        assert found[1] is None
        assert bool(found[0].any())
        assert bool(found[2].any())


def test_one_task_or_no_penalty_has_no_term():
    assert make_model("soft", penalty="none").sharing.penalty(1, 10) is None
    assert make_model("soft", strength=0.0).sharing.penalty(1, 10) is None
    assert make_model("soft", tasks=("摘要",)).sharing.penalty(1, 10) is None


def test_whole_updates_are_never_formed():
    tokenizer = train_tokenizer(["text"], vocab_size=270)
    with torch.device("meta"):
        model = new_llama(tokenizer, hidden_size=4096, num_layers=1, num_heads=2, seed=0)
        share(model, build_sharing("soft", {}), TASKS, LoraSettings(rank=2, alpha=2, target=("up_proj",)))
        with Largest() as largest:
            model.sharing.penalty(1, 10).backward()
    assert largest.size <= 3 * 8192 * 2


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remember the largest result of any operation."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.size = max(self.size, found.numel())
        return found


def test_strengths_move_over_the_run():
    assert [StrengthSchedule("constant", 0.2, None).at(step, 5) for step in (1, 5)] == [0.2, 0.2]
    assert [round(StrengthSchedule("linear", 1.0, 0.0).at(step, 5), 6) for step in (1, 2, 5)] == [1.0, 0.75, 0.0]
    assert [round(StrengthSchedule("cosine", 0.0, 2.0).at(step, 5), 6) for step in (1, 3, 5)] == [0.0, 1.0, 2.0]
    assert StrengthSchedule("linear", 1.0, 0.0).at(1, 1) == 1.0
    model = make_model("soft", strength=0.2, schedule="linear", final_strength=0.1)
    assert model.sharing.penalty(5, 5).item() == pytest.approx(model.sharing.penalty(1, 5).item() / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": "l1"}, "`penalty` must be one of l2, trace_norm, none, got 'l1'"),
        ({"strength": -1}, "`strength` must be a number of at least 0, got -1"),
        ({"strength": float("nan")}, "`strength` must be a number of at least 0, got nan"),
        ({"schedule": "step"}, "`schedule` must be one of constant, linear, cosine, got 'step'"),
        ({"schedule": "linear"}, "`final_strength` is needed by a `schedule`"),
        ({"final_strength": 1.0}, "`final_strength` goes with a `schedule` of linear or cosine, got 'constant'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        build_sharing("soft", arguments)
