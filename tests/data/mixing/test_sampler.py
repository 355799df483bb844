import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_opt.data.mixing import Facts, Sampler, build_mixer, rank_slice
from mtl_opt.errors import InputError

SIZES = {"qa": 10, "情绪": 3, "one": 1}
UNEQUAL = {"qa": 900, "情绪": 90, "sum": 10}


def sampler_of(name: str, **changes: object) -> Sampler:
    facts = Facts(UNEQUAL, total_steps=100, rows_per_step=12, seed=3, ratios={"qa": 0.5, "情绪": 0.2, "sum": 0.3})
    mixer = build_mixer(name, facts, {})
    return Sampler(UNEQUAL, 4, 3, mixer, **changes)


def test_every_draw_has_the_same_number_of_rows_of_every_task() -> None:
    sampler = Sampler(SIZES, rows_per_task=4, seed=0)
    for _ in range(10):
        draw = sampler.draw()
        assert list(draw) == list(SIZES)
        assert all(len(rows) == 4 for rows in draw.values())


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 12), rows_per_task=st.integers(1, 9), draws=st.integers(1, 12))
def test_every_row_is_seen_once_before_any_is_seen_again(size: int, rows_per_task: int, draws: int) -> None:
    sampler = Sampler({"a": size}, rows_per_task, seed=0)
    rows = [row for _ in range(draws) for row in sampler.draw()["a"]]
    for start in range(0, len(rows), size):
        epoch = rows[start : start + size]
        assert len(set(epoch)) == len(epoch)
    assert set(rows) <= set(range(size))


def test_each_epoch_has_its_own_order() -> None:
    sampler = Sampler({"a": 20}, rows_per_task=20, seed=0)
    assert sampler.draw()["a"] != sampler.draw()["a"]


def test_the_seed_decides_the_order() -> None:
    first, again, other = (Sampler({"a": 20}, 20, seed).draw() for seed in (0, 0, 1))
    assert first == again != other


def test_a_tasks_order_does_not_depend_on_the_other_tasks() -> None:
    assert Sampler({"a": 20, "b": 7}, 5, 0).draw()["a"] == Sampler({"a": 20}, 5, 0).draw()["a"]


def test_the_order_is_the_same_in_every_process_and_release() -> None:
    assert Sampler({"情绪": 9}, 9, 3).draw() == {"情绪": [4, 0, 7, 5, 2, 1, 3, 8, 6]}


def test_the_global_random_state_is_left_alone() -> None:
    before = random.getstate()
    Sampler(SIZES, 4, 0).draw()
    assert random.getstate() == before


@pytest.mark.parametrize("num_draws", [0, 1, 2, 5, 17])
def test_a_resumed_sampler_goes_on_with_the_very_next_row(num_draws: int) -> None:
    sampler = Sampler(SIZES, rows_per_task=4, seed=5)
    for _ in range(num_draws):
        sampler.draw()
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = Sampler(SIZES, rows_per_task=4, seed=5)
    resumed.draw()
    resumed.load_state_dict(state)
    assert [sampler.draw() for _ in range(5)] == [resumed.draw() for _ in range(5)]


def test_a_saved_state_does_not_change_with_the_sampler() -> None:
    sampler = Sampler(SIZES, 4, 0)
    state = sampler.state_dict()
    sampler.draw()
    assert state["drawn"] == {"qa": 0, "情绪": 0, "one": 0}


def test_epochs_are_passes_through_each_tasks_rows() -> None:
    sampler = Sampler({"a": 8, "b": 2}, rows_per_task=2, seed=0)
    sampler.draw()
    assert sampler.epochs() == {"a": 0.25, "b": 1.0}


def test_large_tasks_are_seen_evenly() -> None:
    sampler = Sampler({"a": 7}, rows_per_task=3, seed=0)
    counts = Counter(row for _ in range(70) for row in sampler.draw()["a"])
    assert set(counts.values()) == {30}


@pytest.mark.parametrize("other", [{"qa": 10}, {**SIZES, "qa": 11}, {"q": 10, "情绪": 3, "one": 1}])
def test_a_state_of_other_data_is_refused(other: dict[str, int]) -> None:
    with pytest.raises(InputError, match="`sizes`"):
        Sampler(SIZES, 4, 0).load_state_dict(Sampler(other, 4, 0).state_dict())


def test_a_state_of_another_seed_is_refused() -> None:
    with pytest.raises(InputError, match="`seed`"):
        Sampler(SIZES, 4, 0).load_state_dict(Sampler(SIZES, 4, 1).state_dict())


@pytest.mark.parametrize("drawn", [None, {}, {"qa": 1}, {"qa": -1, "情绪": 0, "one": 0}])
def test_a_damaged_state_is_refused(drawn: object) -> None:
    sampler = Sampler(SIZES, 4, 0)
    with pytest.raises(InputError, match="`drawn`"):
        sampler.load_state_dict({**sampler.state_dict(), "drawn": drawn})


@pytest.mark.parametrize(
    ("sizes", "rows_per_task", "words"),
    [({}, 1, "at least one task"), ({"a": 2, "b": 0}, 1, "`b` has no rows"), ({"a": 2}, 0, "`rows_per_task`")],
)
def test_sizes_without_rows_are_refused(sizes: dict[str, int], rows_per_task: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Sampler(sizes, rows_per_task, 0)


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
    for task in UNEQUAL:
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
    one = Sampler(UNEQUAL, 4, 0)
    two = Sampler(UNEQUAL, 2, 0, processes=2)
    for _ in range(5):
        draw = one.draw()
        again = two.draw()
        assert draw == again
        assert rank_slice(again, 1, 2)["qa"] == draw["qa"][2:]
