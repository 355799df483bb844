import pytest
import torch

from benchmarks.sizes import SIZES
from benchmarks.variants import FULL_VARIANTS, VARIANTS, build_step, check, missing, unsuitable
from benchmarks.workload import build_model, build_workload

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def model():
    return build_model(TINY, torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # vmap over torch's CPU attention
@pytest.mark.parametrize(("num_tasks", "rows"), [(2, "equal"), (4, "equal"), (2, "ragged"), (4, "ragged")])
def test_all_variants_compute_the_same_gradient(model, num_tasks, rows):
    variants = [v for v in VARIANTS if not missing(v)]
    found = check(build_workload(model, TINY, num_tasks, rows), variants)
    assert found["passed"], found
    assert set(found["weighted"]) == set(variants)
    assert found["pcgrad_against_plain_sum"] > 0.01  # tasks conflict, else the check of PCGrad would show nothing


@pytest.mark.parametrize("rows", ["equal", "ragged"])
def test_engines_compute_the_same_gradient_where_every_parameter_is_trained(rows):
    work = build_workload(build_model(TINY, torch.device("cpu"), "full"), TINY, 4, rows)
    found = check(work, list(FULL_VARIANTS))
    assert found["passed"], found
    assert found["pcgrad_against_plain_sum"] > 0.01


def test_halves_are_left_out_where_a_task_has_one_row(model):
    for num_tasks, reason in ((8, ""), (16, "halves need two rows of every task")):
        work = build_workload(model, TINY, num_tasks)
        assert unsuitable("one_pass_halves", work) == reason
        assert unsuitable("one_pass", work) == ""


def test_a_step_tells_what_it_keeps_between_steps(model):
    work = build_workload(model, TINY, 4)
    rows = 4 * 4 * sum(p.numel() for p in work.parameters)
    kept = {v: build_step(v, work).buffer_bytes / rows for v in VARIANTS if not missing(v)}
    assert {v for v, size in kept.items() if size} == {v for v in VARIANTS if v.startswith("one_pass")} | {"per_task"}
    assert kept["one_pass"] == kept["one_pass_layers"] == kept["per_task"] == 1
    assert kept["one_pass_window"] == kept["one_pass_halves"] == 2


def test_the_check_sees_a_variant_whose_tasks_are_exchanged(model):
    work = build_workload(model, TINY, 2)
    exchanged = build_workload(model, TINY, 2)
    exchanged.counts.copy_(torch.tensor([1, 3]))
    exchanged.task_ids.copy_(work.task_ids.flip(0))
    found = {}
    for name, one in (("right", work), ("exchanged", exchanged)):
        step = build_step("one_pass", one, "weighted")
        step.fill()
        found[name] = torch.cat([p.grad.flatten() for p in one.parameters])
        step.zero()
    assert (found["right"] - found["exchanged"]).norm() > 0.01 * found["right"].norm()


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_leaves_no_gradient_behind(model, variant):
    if missing(variant):
        pytest.skip(missing(variant))
    work = build_workload(model, TINY, 4)
    step = build_step(variant, work)
    step.fill()
    assert all(p.grad is not None for p in work.parameters)
    step.zero()
    assert all(p.grad is None for p in work.parameters)
