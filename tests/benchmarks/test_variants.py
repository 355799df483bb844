import pytest
import torch

from benchmarks.variants import VARIANTS, build_step, check, missing
from benchmarks.workload import SIZES, build_model, build_workload

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def model():
    return build_model(TINY, torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # vmap over torch's CPU attention
@pytest.mark.parametrize("num_tasks", [2, 4])
def test_all_variants_compute_the_same_gradient(model, num_tasks):
    variants = [v for v in VARIANTS if not missing(v)]
    found = check(build_workload(model, TINY, num_tasks), variants)
    assert found["passed"]
    assert set(found["weighted"]) == set(variants)
    assert found["pcgrad_against_plain_sum"] > 0.01  # tasks conflict, else the check of PCGrad would show nothing


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


def test_tasks_must_divide_the_rows(model):
    with pytest.raises(SystemExit, match="must divide the 8 rows of a step, got 3"):
        build_workload(model, TINY, 3)
