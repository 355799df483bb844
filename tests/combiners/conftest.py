"""How the tests of combiners build and call one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mtl_opt.combiners import COMBINERS, Combiner

ALL = sorted(COMBINERS)
WITH_WEIGHTS = [name for name in ALL if COMBINERS[name].requires in {"losses", "gramian", "halves"}]


@pytest.fixture
def golden() -> Tensor:
    """Two conflicting gradients whose combinations are known for every method."""
    return torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


@pytest.fixture
def ill_scaled() -> Callable[[int, int], Tensor]:
    """Draw gradients whose norms run from 1e-3 to 1e3."""

    def draw(num_tasks: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(num_tasks, 6, generator=generator, dtype=torch.float64)
        return rows * torch.logspace(-3, 3, num_tasks, dtype=torch.float64)[:, None]

    return draw


@pytest.fixture(params=ALL)
def make(request) -> type[Combiner]:
    """Give every class of the registry."""
    return COMBINERS[request.param]


@pytest.fixture(params=WITH_WEIGHTS)
def make_weighted(request) -> type[Combiner]:
    """Give every class whose weights can be had from losses or inner products of one step."""
    return COMBINERS[request.param]


@pytest.fixture
def order_dependent(make_weighted) -> bool:
    """Say whether weights of three or more tasks depend on a random order in which tasks meet."""
    return make_weighted in {COMBINERS["pcgrad"], COMBINERS["gradvac"]}


@pytest.fixture
def drawn_weights(make_weighted) -> bool:
    """Say whether the weights themselves are drawn, so that they belong to a place and not to a task."""
    return make_weighted is COMBINERS["rlw"]


@pytest.fixture
def first_by_name(make_weighted) -> dict[str, object]:
    """Give the arguments that name the task `qa` where tasks are not alike, so that its place does not matter."""
    arguments = {"pcd": {"primary": "qa"}, "priority": {"main": ["qa"]}, "auxiliary": {"main": ["qa"]}}
    return next((args for name, args in arguments.items() if COMBINERS[name] is make_weighted), {})


@pytest.fixture(params=[name for name in ALL if COMBINERS[name].observes != "nothing"])
def make_observer(request) -> type[Combiner]:
    """Give every class that wants losses measured after the step."""
    return COMBINERS[request.param]
