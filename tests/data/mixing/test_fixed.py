"""Mixings with constant shares: what they refuse."""

import pytest

from mtl_opt.data.mixing import Facts, build_mixer
from mtl_opt.errors import InputError

SIZES = {"qa": 900, "情绪": 90, "sum": 10}
STEPS = 100


def facts(**changes: object) -> Facts:
    known = {
        "sizes": SIZES, "total_steps": STEPS, "rows_per_step": 12, "seed": 3,
        "lengths": {"qa": 30.0, "情绪": 10.0, "sum": 20.0}, "ratios": {"qa": 0.5, "情绪": 0.2, "sum": 0.3},
    }  # fmt: skip
    return Facts(**{**known, **changes})


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ({"qa": 0, "情绪": 0, "sum": 0}, "must give at least one task a share above 0"),
        ({"qa": 0.5, "情绪": 0.5, "sun": 0}, "Did you mean `sum`"),
        ({"qa": 0.5, "情绪": 0.5}, "task `sum` has no share"),
        ({"qa": -0.5, "情绪": 0.5, "sum": 1}, "`mixing_args.ratios.qa`"),
        ({}, "must give a share for every task"),
    ],
)
def test_ratios_that_do_not_fit_are_named(ratios: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_mixer("ratios", facts(ratios=ratios), {})


@pytest.mark.parametrize("name", ["proportional", "sqrt", "temperature", "inverse", "unimax"])
def test_a_mixing_by_size_refuses_a_stream(name: str) -> None:
    with pytest.raises(InputError, match="task `a` is a stream"):
        build_mixer(name, facts(sizes={"a": None}), {})


@pytest.mark.parametrize("name", ["ratios", "homogeneous"])
def test_ratios_are_scaled_to_sum_to_1(name: str) -> None:
    mixer = build_mixer(name, facts(ratios={"qa": 3, "情绪": 1, "sum": 2}), {})
    steps = [mixer.shares(step) for step in range(60)]
    assert [sum(shares) / 60 for shares in zip(*steps, strict=True)] == pytest.approx([1 / 2, 1 / 6, 1 / 3])


def test_homogeneous_shares_the_steps_evenly_without_ratios_or_when_asked_to() -> None:
    for mixer in (
        build_mixer("homogeneous", facts(ratios={}), {}),
        build_mixer("homogeneous", facts(), {"by": "equal"}),
    ):
        steps = [mixer.shares(step) for step in range(60)]
        assert [sum(shares) for shares in zip(*steps, strict=True)] == [20, 20, 20]
