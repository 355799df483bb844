"""Every optimizer trains, goes on from its saved state in the same bits, and takes what the configuration says."""

import io
import re

import pytest
import torch
from torch import nn

from mtl_opt.errors import InputError
from mtl_opt.training import optimizers as optim
from mtl_opt.training.optimizers import OPTIMIZERS, STATE_BYTES, build_optimizer


def problem():
    """A matrix of 4096 numbers, the fewest that bitsandbytes keeps in 8 bits."""
    torch.manual_seed(3)
    return nn.Parameter(torch.randn(64, 64)), torch.randn(64, 64)


def steps(optimizer, parameter, goal, number):
    for _ in range(number):
        parameter.grad = parameter.detach() - goal
        optimizer.step()


def distance(name, number=20, **settings):
    parameter, goal = problem()
    steps(build_optimizer(name, [parameter], learning_rate=0.05, **settings), parameter, goal, number)
    return float((parameter.detach() - goal).norm())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_come_nearer(name):
    parameter, goal = problem()
    assert distance(name) < 0.95 * float((parameter.detach() - goal).norm())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saved_state_goes_on_in_the_same_bits(name):
    whole, goal = problem()
    optimizer = build_optimizer(name, [whole], learning_rate=0.05, weight_decay=0.1)
    steps(optimizer, whole, goal, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    resumed = nn.Parameter(whole.detach().clone())
    steps(optimizer, whole, goal, 3)
    again = build_optimizer(name, [resumed], learning_rate=0.05, weight_decay=0.1)
    file.seek(0)
    again.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    steps(again, resumed, goal, 3)
    assert torch.equal(resumed, whole)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_takes_the_bytes_that_are_planned_for(name):
    parameter, goal = problem()
    optimizer = build_optimizer(name, [parameter], learning_rate=0.05)
    steps(optimizer, parameter, goal, 1)
    held = sum(v.numel() * v.element_size() for v in optimizer.state[parameter].values() if torch.is_tensor(v))
    planned = STATE_BYTES[name] * parameter.numel()
    # Beside it: 8-bit states' scales per block and two tables of 256 numbers, Adafactor's two vectors, a counter.
    assert planned <= held <= planned + 2 * 1024 + 0.06 * parameter.numel() + 1024


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "8bit" in n])
def test_an_8_bit_optimizer_keeps_8_bits(name):
    parameter, goal = problem()
    optimizer = build_optimizer(name, [parameter], learning_rate=0.05)
    steps(optimizer, parameter, goal, 1)
    assert optimizer.state[parameter]["state1"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("name", "reference"), [("adamw_bnb_8bit", "adamw_torch"), ("paged_adamw_32bit", "adamw_torch")]
)
def test_quantised_states_stay_near_the_exact_ones(name, reference):
    found, wanted = (distance(n, 50) for n in (name, reference))
    assert found == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_reaches_the_optimizer(name):
    assert distance(name) != distance(name, weight_decay=0.5)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "adam" in n or "lion" in n])
def test_betas_reach_the_optimizer(name):
    assert distance(name) != distance(name, betas=(0.5, 0.7))


def test_an_optimizer_of_bitsandbytes_without_it_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(optim, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=re.escape("`optim` needs AdamW8bit of the package bitsandbytes")):
        build_optimizer("adamw_bnb_8bit", [problem()[0]], learning_rate=0.1)
    build_optimizer("adamw_torch", [problem()[0]], learning_rate=0.1)
