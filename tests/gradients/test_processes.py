"""Rows that several processes fill are those of one large batch in one process."""

import json
from pathlib import Path

import pytest
import torch
from launch import torchrun

from mtl_opt.gradients.processes import Processes

WORKER = Path(__file__).with_name("processes_worker.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Run all cases in two real processes, once."""
    path = tmp_path_factory.mktemp("processes") / "found.json"
    done = torchrun(2, str(WORKER), str(path))
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("engine", ["one_pass", "per_task"])
@pytest.mark.parametrize("trained", ["lora", "full"])
def test_rows_of_two_processes_are_those_of_one_large_batch(found, engine, trained):
    case = found[f"data_parallel_{engine}_{trained}"]
    assert case["jacobian"] < 1e-5
    assert case["gramian"] < 1e-5


def test_one_buffer_is_all_that_is_sent(found):
    assert 1 <= found["data_parallel_one_pass_full"]["bytes"] < 1.001


@pytest.mark.parametrize("engine", ["one_pass", "per_task"])
@pytest.mark.parametrize("activations", ["kept", "recomputed"])
def test_a_sharded_base_with_whole_adapters_gives_the_same_rows(found, engine, activations):
    case = found[f"base_sharded_{engine}_{activations}"]
    assert case["sharded"] > 10
    assert case["jacobian"] < 1e-5


def test_with_everything_sharded_gramian_combination_and_clipping_are_those_of_whole_rows(found):
    case = found["all_sharded"]
    assert case["is_per_task"] == 1
    for what in ("gramian", "layers", "combined", "norm", "clipped"):
        assert case[what] < 1e-5, what


def test_halves_are_dealt_by_the_position_in_the_global_step(found):
    case = found["halves"]
    assert case["two_sample"] < 1e-5
    assert case["jacobian"] < 1e-5
    assert case["asymmetry"] > 1e-3  # so that a transposed one would be seen


def test_private_gradients_are_summed_and_those_of_an_absent_task_stay_none(found):
    case = found["private"]
    assert case["qa"] < 1e-6
    assert case["summary"] < 1e-6
    assert case["absent_is_none"] == 1


def test_a_process_on_its_own_sends_nothing():
    processes = Processes()
    tensor = torch.ones(3)
    assert processes.sum(tensor) is tensor
    assert (processes.world, processes.rank, processes.sent) == (1, 0, 0)
    assert processes.gather(tensor).shape == (1, 3)
