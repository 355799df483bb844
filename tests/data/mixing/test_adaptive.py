"""Mixings that learn from losses."""

import pytest

from mtl_opt.data.mixing import Facts, build_mixer

SIZES = {"qa": 900, "情绪": 90, "sum": 10}
STEPS = 100


def facts(**changes: object) -> Facts:
    known = {
        "sizes": SIZES, "total_steps": STEPS, "rows_per_step": 12, "seed": 3,
        "lengths": {"qa": 30.0, "情绪": 10.0, "sum": 20.0}, "ratios": {"qa": 0.5, "情绪": 0.2, "sum": 0.3},
    }  # fmt: skip
    return Facts(**{**known, **changes})


@pytest.mark.parametrize("name", ["learning_speed", "loss_softmax", "bandit"])
def test_tasks_whose_loss_stays_high_get_more(name: str) -> None:
    mixer = build_mixer(name, facts(), {})
    for step in range(60):
        mixer.shares(step)
        mixer.observe({"qa": 3.0 * 0.9**step, "情绪": 3.0, "sum": 3.0 * 0.97**step}, step)
    shares = mixer.shares(60)
    assert shares[1] > shares[2] > shares[0] > 0
