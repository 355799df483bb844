"""Every mixing: the sampler delivers what it promises, and a resumed run goes on unchanged."""

import json
import random

import pytest

from mtl_opt.data.mixing import MIXINGS, Facts, Sampler, build_mixer
from mtl_opt.errors import InputError

SIZES = {"qa": 900, "情绪": 90, "sum": 10}
POINTS = [[0.0, {"qa": 1, "情绪": 0, "sum": 0}], [1.0, {"qa": 0.2, "情绪": 0.2, "sum": 0.6}]]
ARGUMENTS = {"ratio_schedule": {"points": POINTS}}
STEPS = 100
every_mixing = pytest.mark.parametrize("name", MIXINGS)


def facts(**changes: object) -> Facts:
    known = {
        "sizes": SIZES, "total_steps": STEPS, "rows_per_step": 12, "seed": 3,
        "lengths": {"qa": 30.0, "情绪": 10.0, "sum": 20.0}, "ratios": {"qa": 0.5, "情绪": 0.2, "sum": 0.3},
    }  # fmt: skip
    return Facts(**{**known, **changes})


def sampler_of(name: str, **changes: object) -> Sampler:
    mixer = build_mixer(name, facts(), ARGUMENTS.get(name, {}))
    return Sampler(SIZES, 4, 3, mixer, **changes)


def losses_at(step: int) -> dict[str, float]:
    return {task: 3.0 / (1 + step * (i + 1) / 20) for i, task in enumerate(SIZES)}


@every_mixing
def test_every_draw_has_the_rows_of_a_step_and_counts_follow_the_shares_to_within_a_row(name: str) -> None:
    sampler = sampler_of(name)
    promised = dict.fromkeys(SIZES, 0.0)
    for step in range(STEPS):
        draw = sampler.draw()
        assert sum(map(len, draw.values())) == 12
        assert sum(sampler.current) == pytest.approx(1)
        for task, share in zip(SIZES, sampler.current, strict=True):
            promised[task] += 12 * share
            assert abs(sampler.drawn[task] - promised[task]) <= 12 / 100 * (step + 1) + 1
        sampler.observe(losses_at(step), step)
    for task in SIZES:
        assert abs(sampler.drawn[task] - promised[task]) < 1 + 1e-9


ROOTS = [size**0.5 / (30 + 90**0.5 + 10**0.5) for size in SIZES.values()]
EXPECTED = {
    "balanced": [1 / 3] * 3,
    "equal": [1 / 3] * 3,
    "proportional": [0.9, 0.09, 0.01],
    "sqrt": ROOTS,
    "temperature": ROOTS,
    "inverse": [w / (1 / 900 + 1 / 90 + 1 / 10) for w in (1 / 900, 1 / 90, 1 / 10)],
    "unimax": [900 / 1000, 90 / 1000, 10 / 1000],  # 1200 rows are drawn: no task more than once
    "ratios": [0.5, 0.2, 0.3],
    "homogeneous": [0.5, 0.2, 0.3],  # `ratios` where there are some
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_shares_over_a_run_are_those_of_the_formula_to_within_one_row_in_a_hundred(name: str) -> None:
    sampler = sampler_of(name)
    for _ in range(STEPS):
        sampler.skip()
    total = sum(sampler.drawn.values())
    for task, share in zip(SIZES, EXPECTED[name], strict=True):
        assert abs(sampler.drawn[task] / total - share) <= 0.01


@every_mixing
@pytest.mark.parametrize("taken", [0, 1, 7, 30])
def test_a_resumed_run_goes_on_with_the_very_next_row_under_every_mixing(name: str, taken: int) -> None:
    def go_on(sampler: Sampler, first: int) -> list[dict[str, list[int]]]:
        draws = []
        for step in range(first, first + 20):
            draws.append(sampler.draw())
            sampler.observe(losses_at(step), step)
        return draws

    sampler = sampler_of(name)
    for step in range(taken):
        sampler.draw()
        sampler.observe(losses_at(step), step)
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = sampler_of(name)
    resumed.draw()
    resumed.load_state_dict(state)
    assert go_on(sampler, taken) == go_on(resumed, taken)


@every_mixing
def test_draws_depend_on_the_seed_alone(name: str) -> None:
    random.seed(0)
    before = random.getstate()
    assert [sampler_of(name).draw() for _ in range(2)] == [sampler_of(name).draw() for _ in range(2)]
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("sqr", {}, "Did you mean `sqrt`"),
        ("sqrt", {"temperature": 2}, "no argument `temperature`"),
        ("temperature", {"temperature": 0}, "`mixing_args.temperature`"),
        ("temperature", {"cap": "many"}, "`mixing_args.cap`"),
        ("rotation", {"main_share": 2}, "`mixing_args.main_share`"),
        ("curriculum", {"pacing": "fast"}, "linear, root, square, step"),
        ("ratio_schedule", {}, "`mixing_args.points`"),
        ("ratio_schedule", {"points": [[0, {"qa": 1}]]}, "task `情绪` has no share"),
        ("ratio_schedule", {"points": [[0.5, POINTS[0][1]], [0.1, POINTS[1][1]]]}, "times must rise"),
        ("bandit", {"reward": "fun"}, "loss, progress"),
    ],
)
def test_arguments_that_do_not_fit_are_named(name: str, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_mixer(name, facts(), arguments)
