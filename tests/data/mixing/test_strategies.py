"""Every mixing: what it promises is what the sampler delivers, and a resumed run goes on unchanged."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_opt.data.mixing import MIXINGS, Facts, Sampler, build_mixer, rank_slice
from mtl_opt.data.mixing.quota import Quota
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
    "homogeneous": [1 / 3] * 3,
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_shares_over_a_run_are_those_of_the_formula_to_within_one_row_in_a_hundred(name: str) -> None:
    sampler = sampler_of(name)
    for _ in range(STEPS):
        sampler.skip()
    total = sum(sampler.drawn.values())
    for task, share in zip(SIZES, EXPECTED[name], strict=True):
        assert abs(sampler.drawn[task] / total - share) <= 0.01


@settings(max_examples=200, deadline=None)
@given(weights=st.lists(st.floats(1e-4, 1), min_size=1, max_size=9), rows=st.integers(1, 40), draws=st.integers(1, 60))
def test_rounded_shares_are_never_a_whole_row_off(weights: list[float], rows: int, draws: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    quota, given_ = Quota(len(shares)), [0] * len(shares)
    for draw in range(1, draws + 1):
        counts = quota.take(shares, rows)
        assert sum(counts) == rows
        given_ = [a + b for a, b in zip(given_, counts, strict=True)]
        assert all(abs(g - s * rows * draw) < 1 for g, s in zip(given_, shares, strict=True))


@every_mixing
@pytest.mark.parametrize("taken", [0, 1, 7, 30])
def test_a_resumed_sampler_goes_on_with_the_very_next_row(name: str, taken: int) -> None:
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


@pytest.mark.parametrize("name", ["homogeneous", "rotation"])
def test_accumulated_draws_belong_to_one_step(name: str) -> None:
    sampler = sampler_of(name, draws_per_step=3)
    for _ in range(6):
        main = {max(draw, key=lambda task: len(draw[task])) for draw in (sampler.draw() for _ in range(3))}
        assert len(main) == 1


def test_homogeneous_fills_a_step_with_one_task() -> None:
    sampler = sampler_of("homogeneous")
    assert all(sum(map(bool, sampler.draw().values())) == 1 for _ in range(20))


def test_rotation_changes_the_main_task_every_period() -> None:
    mixer = build_mixer("rotation", facts(), {"period": 2, "main_share": 0.8})
    main = [max(range(3), key=mixer.shares(step).__getitem__) for step in range(8)]
    assert main == [0, 0, 1, 1, 2, 2, 0, 0]
    assert mixer.shares(0) == pytest.approx([0.8, 0.1, 0.1])


@pytest.mark.parametrize(("order", "opened"), [("listed", [0, 1, 2]), ("length", [1, 2, 0])])
def test_a_curriculum_opens_tasks_in_order_until_all_are_open(order: str, opened: list[int]) -> None:
    mixer = build_mixer("curriculum", facts(), {"order": order, "until": 0.5})
    seen = [[task for task, share in enumerate(mixer.shares(step)) if share] for step in range(STEPS)]
    assert seen[0] == sorted(opened[:1])
    assert seen[20] == sorted(opened[:2])
    assert all(len(tasks) == 3 for tasks in seen[50:])


def test_a_curriculum_by_loss_measures_first_and_then_opens_the_lowest() -> None:
    mixer = build_mixer("curriculum", facts(), {"order": "loss", "measure": 5})
    for step in range(5):
        assert mixer.shares(step) == pytest.approx([1 / 3] * 3)
        mixer.observe({"qa": 3.0, "情绪": 1.0, "sum": 2.0}, step)
    assert mixer.shares(5) == [0, 1, 0]


@pytest.mark.parametrize("pacing", ["linear", "root", "square", "step"])
def test_pacings_never_close_a_task_again(pacing: str) -> None:
    mixer = build_mixer("curriculum", facts(), {"pacing": pacing})
    num_open = [sum(share > 0 for share in mixer.shares(step)) for step in range(STEPS)]
    assert num_open == sorted(num_open)
    assert num_open[0] == 1
    assert num_open[-1] == 3


def test_a_ratio_schedule_meets_its_points_and_is_linear_or_flat_between() -> None:
    linear = build_mixer("ratio_schedule", facts(), {"points": POINTS})
    assert linear.shares(0) == [1, 0, 0]
    assert linear.shares(STEPS - 1) == pytest.approx([0.2, 0.2, 0.6])
    assert linear.shares(33)[2] == pytest.approx(0.2)
    flat = build_mixer(
        "ratio_schedule", facts(), {"points": [*POINTS[:1], [0.8, POINTS[1][1]]], "interpolation": "piecewise"}
    )
    assert [flat.shares(step)[0] for step in (0, 50, 78, 80, 99)] == [1, 1, 1, 0.2, 0.2]


@pytest.mark.parametrize("name", ["learning_speed", "loss_softmax", "bandit"])
def test_tasks_whose_loss_stays_high_get_more(name: str) -> None:
    mixer = build_mixer(name, facts(), {})
    for step in range(60):
        mixer.shares(step)
        mixer.observe({"qa": 3.0 * 0.9**step, "情绪": 3.0, "sum": 3.0 * 0.97**step}, step)
    shares = mixer.shares(60)
    assert shares[1] > shares[2] > shares[0] > 0


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", ["balanced", "sqrt", "ratios"])
def test_with_tasks_per_step_a_step_has_that_many_tasks_and_shares_hold_over_time(name: str, k: int) -> None:
    sampler, free = sampler_of(name, tasks_per_step=k, draws_per_step=2), sampler_of(name)
    for _ in range(400):
        draws = [sampler.draw() for _ in range(2)]
        assert len({task for draw in draws for task, rows in draw.items() if rows}) <= k
        assert all(sum(map(len, draw.values())) == 12 for draw in draws)
        free.skip()
        free.skip()
    for task in SIZES:
        assert sampler.drawn[task] / 9600 == pytest.approx(free.drawn[task] / 9600, abs=0.01)


def test_with_limits_a_task_leaves_the_mix_and_every_row_is_seen_that_often() -> None:
    sampler = Sampler({"a": 7, "b": 20, "c": 3}, 2, 0, limits={"a": 7, "b": 20, "c": 3})
    drawn: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for _ in range(5):
        for task, rows in sampler.draw().items():
            drawn[task] += rows
    assert {task: sorted(rows) for task, rows in drawn.items()} == {t: list(range(n)) for t, n in sampler.sizes.items()}


@given(
    sizes=st.lists(st.integers(0, 13), min_size=1, max_size=6), world=st.integers(1, 5)
)  # fmt: skip
def test_processes_share_a_draw_exactly(sizes: list[int], world: int) -> None:
    draw = {f"t{i}": list(range(100 * i, 100 * i + n)) for i, n in enumerate(sizes)}
    parts = [rank_slice(draw, rank, world) for rank in range(world)]
    for task, rows in draw.items():
        assert [row for part in parts for row in part[task]] == rows
    totals = [sum(map(len, part.values())) for part in parts]
    assert max(totals) - min(totals) <= 1


def test_processes_with_n_rows_see_what_one_with_all_of_them_sees() -> None:
    one = Sampler(SIZES, 4, 0)
    two = Sampler(SIZES, 2, 0, processes=2)
    for _ in range(5):
        draw = one.draw()
        again = two.draw()
        assert draw == again
        assert rank_slice(again, 1, 2)["qa"] == draw["qa"][2:]


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


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ({"qa": 0.5, "情绪": 0.2, "sum": 0.2}, "must sum up to 1, got 0.9"),
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
