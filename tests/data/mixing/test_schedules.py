"""Mixings whose shares depend on the step."""

import pytest

from mtl_opt.data.mixing import Facts, Sampler, build_mixer

SIZES = {"qa": 900, "情绪": 90, "sum": 10}
POINTS = [[0.0, {"qa": 1, "情绪": 0, "sum": 0}], [1.0, {"qa": 0.2, "情绪": 0.2, "sum": 0.6}]]
ARGUMENTS = {"ratio_schedule": {"points": POINTS}}
STEPS = 100


def facts(**changes: object) -> Facts:
    known = {
        "sizes": SIZES, "total_steps": STEPS, "rows_per_step": 12, "seed": 3,
        "lengths": {"qa": 30.0, "情绪": 10.0, "sum": 20.0}, "ratios": {"qa": 0.5, "情绪": 0.2, "sum": 0.3},
    }  # fmt: skip
    return Facts(**{**known, **changes})


def sampler_of(name: str, **changes: object) -> Sampler:
    mixer = build_mixer(name, facts(), ARGUMENTS.get(name, {}))
    return Sampler(SIZES, 4, 3, mixer, **changes)


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
