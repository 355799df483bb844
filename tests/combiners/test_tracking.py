"""What ExcessMTL, MoCo and DBMTL promise alike: their state is one row per task over all parameters."""

import copy

import pytest
import torch

from mtl_opt.combiners import DBMTL, ExcessMTL, MoCo

NAMES = ["qa", "投诉", "anger"]


def step(combiner, seed, tasks=(0, 1, 2), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, 7, generator=generator, dtype=torch.float64)[list(tasks)]
    losses = torch.rand(3, generator=generator, dtype=torch.float64)[list(tasks)] + 0.5
    return combiner(rows.to(dtype), losses, tasks=list(tasks))


@pytest.fixture(params=[lambda: ExcessMTL(lr=0.5), MoCo, DBMTL], ids=["excess_mtl", "moco", "db_mtl"])
def make(request):
    def build():
        combiner = request.param()
        combiner.bind(NAMES)
        return combiner

    return build


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tracking_fresh_combiner_continues_from_a_checkpoint(make, dtype, tmp_path):
    combiner = make()
    for seed in range(3):
        step(combiner, seed, dtype=dtype)
    torch.save(combiner.state_dict(), tmp_path / "combiner.pt")
    fresh = type(combiner)(**({"lr": 0.5} if isinstance(combiner, ExcessMTL) else {}))
    fresh.load_state_dict(torch.load(tmp_path / "combiner.pt", weights_only=True))
    for seed in range(3, 6):
        assert torch.equal(step(fresh, seed, dtype=dtype), step(combiner, seed, dtype=dtype))


def test_a_used_combiner_takes_an_earlier_checkpoint_back(make):
    combiner = make()
    early = copy.deepcopy(combiner.state_dict())
    first = step(combiner, 0)
    combiner.load_state_dict(early)
    assert torch.equal(step(combiner, 0), first)


def test_tracking_reset_restores_the_first_step(make):
    combiner = make()
    first = [step(combiner, seed) for seed in range(3)]
    combiner.reset()
    assert all(torch.equal(step(combiner, seed), first[seed]) for seed in range(3))


def test_tracking_state_of_an_absent_task_is_untouched(make):
    combiner = make()
    step(combiner, 0)
    before = copy.deepcopy(combiner.state_dict())
    for seed in range(1, 4):
        step(combiner, seed, tasks=(2, 0))
    for name, value in combiner.state_dict().items():
        if isinstance(value, torch.Tensor) and value.shape[:1] == (3,):
            assert torch.equal(value[1], before[name][1]), name


def test_present_tasks_may_come_late_alone_and_in_any_order(make):
    one, other = make(), make()
    for seed, tasks in enumerate([(0, 2), (1,), (0, 1, 2), (2, 1)]):
        torch.testing.assert_close(step(one, seed, tasks), step(other, seed, tasks[::-1]))


def test_tracking_copies_go_their_own_way(make):
    combiner = make()
    step(combiner, 0)
    twin = copy.deepcopy(combiner)
    step(twin, 1)
    control = make()
    step(control, 0)
    assert torch.equal(step(combiner, 2), step(control, 2))


def test_tracking_moving_or_casting_it_changes_nothing(make):
    combiner, control = make(), make()
    step(combiner, 0), step(control, 0)
    combiner.half().to("meta")
    assert torch.equal(step(combiner, 1), step(control, 1))


def test_half_precision_rows_are_remembered_in_float32(make):
    combiner = make()
    step(combiner, 0, dtype=torch.bfloat16)
    (state,) = (v for v in combiner.state_dict().values() if isinstance(v, torch.Tensor) and v.dim() == 2)
    assert state.dtype == torch.float32


def test_another_number_of_parameters_is_refused(make):
    combiner = make()
    step(combiner, 0)
    with pytest.raises(ValueError, match="`jacobian` must have 7 columns as in earlier steps, got 5"):
        combiner(torch.ones(3, 5, dtype=torch.float64), torch.ones(3))


def test_it_says_that_it_has_no_weights(make):
    combiner = make()
    with pytest.raises(ValueError, match=f"`{type(combiner).__name__}` has no weights for a Gramian"):
        combiner.weights(torch.eye(3), torch.ones(3))
