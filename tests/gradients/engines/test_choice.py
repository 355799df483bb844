"""Engines are chosen by name."""

import pytest
from torch import nn

from mtl_opt.gradients import ENGINES, TaskGradients


def test_every_engine_builds_on_a_linear_layer():
    for engine in ENGINES:
        grads = TaskGradients(nn.Linear(2, 2), ["qa", "anger"], engine)
        assert grads.engine.name == (engine if engine != "auto" else "one_pass")
        assert grads.engine_reason


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="two_pass or 'feature:MODULE', got 'three_pass'"):
        TaskGradients(nn.Linear(2, 2), ["qa", "anger"], "three_pass")
