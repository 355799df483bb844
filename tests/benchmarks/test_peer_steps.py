import pytest
import torch

from benchmarks import peer_steps
from benchmarks.sizes import SIZES
from benchmarks.step import fixed_weights
from benchmarks.workload import build_model, build_workload


@pytest.fixture
def work():
    return build_workload(build_model(SIZES["tiny"], torch.device("cpu")), SIZES["tiny"], 2)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # vmap over torch's CPU attention
def test_autogram_hooks_a_copy_of_the_modules_only(work):
    if peer_steps.missing("torchjd_autogram"):
        pytest.skip(peer_steps.missing("torchjd_autogram"))
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in work.model.modules()]
    step = peer_steps.torchjd_autogram(work, "pcgrad")
    assert before == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in work.model.modules()]
    step.fill()  # and still trains the parameters of the one model
    assert all(p.grad is not None for p in work.parameters)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert peer_steps.missing("torchjd_sequential") == "the package torchjd is not installed"
    assert peer_steps.missing("pytorch_optimizer") == "the package pytorch_optimizer is not installed"


def test_fixed_weights_tell_all_tasks_apart(work):
    assert len(set(fixed_weights(work).tolist())) == work.num_tasks
