"""CoBa weights tasks by the slopes of their validation losses."""

import copy

import numpy as np
import pytest
import torch
from references.coba_reference import CoBaReference
from torch import Tensor

from mtl_opt.combiners import CoBa
from mtl_opt.combiners.coba import divergence_factor

ONES = torch.ones(3, dtype=torch.float64)


def observed(combiner: CoBa, losses: Tensor) -> Tensor:  # [observations, tasks] -> [tasks]
    """Show validation losses and return the weights after the last."""
    for one in losses:
        combiner.observe(one)
    return combiner.weights(None, torch.ones(losses.shape[1], dtype=torch.float64))


def curves(*rates: float, num: int, start: float = 1.0) -> Tensor:  # [observations, tasks]
    """Draw straight validation losses that fall (or rise) by a rate per observation."""
    times = torch.arange(num, dtype=torch.float64)[:, None]
    return start * (1 + torch.tensor(rates, dtype=torch.float64) * times)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize(("window", "warmup"), [(5, 3), (4, 9), (200, 2), (7, 7)])
def test_it_equals_the_reference_when_all_tasks_are_observed(form, window, warmup):
    combiner = CoBa(form, window, warmup, tau=5.0)
    reference = CoBaReference(4, form, window, warmup, tau=5.0)
    generator = torch.Generator().manual_seed(0)
    level = torch.tensor([1.0, 0.1, 10.0, 3.0], dtype=torch.float64)
    for step in range(50):
        losses = level * (0.97**step + 0.2 * torch.rand(4, generator=generator, dtype=torch.float64))
        combiner.observe(losses)
        reference.observe(dict(enumerate(losses.tolist())))
        wanted = torch.from_numpy(reference.weights(range(4)))
        torch.testing.assert_close(combiner.weights(None, losses), wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_it_equals_the_reference_when_validation_losses_are_missing(form):
    combiner, reference = CoBa(form, 6, 3, tau=2.0), CoBaReference(4, form, 6, 3, tau=2.0)
    combiner.bind(["qa", "summary", "anger", "ner"])
    generator = torch.Generator().manual_seed(1)
    for step in range(60):
        tasks = [[0, 1, 2, 3], [2, 0], [3, 1, 2], [1]][step % 4] if step < 40 else [0, 3]
        losses = 0.98**step + 0.3 * torch.rand(len(tasks), generator=generator, dtype=torch.float64)
        combiner.observe(losses, tasks=tasks)
        reference.observe(dict(zip(tasks, losses.tolist(), strict=True)))
        for present in ([0, 1, 2, 3], [3, 1], [2]):
            wanted = torch.from_numpy(reference.weights(present))
            found = combiner.weights(None, torch.ones(len(present), dtype=torch.float64), tasks=present)
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12)


def test_coba_weights_by_hand():
    # Slopes −1/2 and −1/10 of two losses each: RCS = softmax(2·(−5/6), 2·(−1/6)), and DF = 1 at the first slope.
    weights = observed(CoBa(warmup=2), torch.tensor([[1.0, 1.0], [0.5, 0.9]], dtype=torch.float64))
    share = 1 / (1 + np.exp(-4 / 3))
    assert weights.tolist() == pytest.approx([1 - share, share], rel=1e-12)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_weights_are_equal_until_the_warm_up_is_over(form):
    combiner = CoBa(form, warmup=10)
    losses = curves(-0.01, -0.05, 0.02, num=10)
    torch.testing.assert_close(observed(combiner, losses[:9]), ONES / 3)
    combiner.observe(losses[9])
    assert combiner.weights(None, ONES).std() > 0.01


@pytest.mark.parametrize("form", ["paper", "code"])
def test_the_task_that_converges_slowly_gets_more(form):
    weights = observed(CoBa(form, window=20, warmup=5), curves(-0.02, -0.01, -0.001, num=30))
    assert weights[0] < weights[1] < weights[2]
    assert weights.sum().item() == pytest.approx(1.0)


def test_a_task_that_starts_to_diverge_loses_weight():
    falling = curves(-0.01, -0.01, -0.01, num=30)
    rising = falling[-1] * curves(-0.01, -0.01, 0.03, num=20)
    combiner = CoBa(window=10, warmup=5)
    before = observed(combiner, falling)
    after = observed(combiner, rising)
    assert after[2] < 0.5 * before[2]
    assert after[2] < min(after[0], after[1])


def test_the_paper_form_never_gives_the_absolute_score_a_negative_part():
    # The worst slope gets steeper and steeper, so that the factor exceeds 1.
    losses = 3 - 0.0005 * torch.arange(60, dtype=torch.float64)[:, None] ** 2 * torch.tensor([1.0, 0.6, 0.5])
    combiner = CoBa(window=5, warmup=3)
    for one in losses:
        combiner.observe(one)
        weights = combiner.weights(None, ONES)
        assert ((weights >= 0) & (weights <= 1)).all()
    assert divergence_factor(np.array(combiner.worst_slopes), 5.0) > 1
    slopes = combiner.slopes[:, (int(combiner.num_slopes[0]) - 1) % 5]
    torch.testing.assert_close(weights, torch.softmax(3 * slopes / slopes.abs().sum(), 0))  # RCS alone


def test_the_code_form_keeps_every_weight_above_its_floor():
    losses = torch.cat([curves(-0.01, -0.01, -0.01, num=30), 0.7 * curves(0.5, -0.001, -0.01, num=30)])
    combiner = CoBa("code", window=5, warmup=3)
    for one in losses:
        combiner.observe(one)
        assert (combiner.weights(None, ONES) > 1 / 30 - 1e-12).all()


@pytest.mark.parametrize(("window", "warmup"), [(3, 20), (20, 3)])
def test_the_history_is_as_long_as_the_window_whatever_the_warm_up(window, warmup):
    combiner = CoBa(window=window, warmup=warmup)
    for count, losses in enumerate(curves(-0.01, -0.005, -0.001, num=60), 1):
        combiner.observe(losses)
        assert (combiner.num_slopes == max(0, count - warmup + 1)).all()
    assert (combiner.slopes != 0).all()


def test_missed_observations_do_not_compress_the_time_axis():
    combiner = CoBa(window=10, warmup=3)
    combiner.bind(["qa", "ner"])
    for time, losses in enumerate(curves(-0.02, -0.02, num=21)):
        tasks = [0, 1] if time % 4 == 0 else [0]
        combiner.observe(losses[tasks], tasks=tasks)
    latest = combiner.slopes[[0, 1], [(int(n) - 1) % 10 for n in combiner.num_slopes]]
    torch.testing.assert_close(latest, torch.full((2,), -0.02, dtype=torch.float64))
    torch.testing.assert_close(combiner.weights(None, ONES[:2]), ONES[:2] / 2, rtol=0, atol=1e-9)


def test_a_validation_loss_of_zero_counts():
    combiner = CoBa(window=4, warmup=2)
    for losses in ([1.0, 1.0], [0.5, 0.9], [0.0, 0.8]):
        combiner.observe(torch.tensor(losses, dtype=torch.float64))
    slopes = combiner.slopes[:, 1]
    torch.testing.assert_close(slopes, torch.tensor([-0.5, -0.1], dtype=torch.float64))


def test_a_first_validation_loss_of_zero_gives_finite_weights():
    combiner = CoBa(window=4, warmup=2)
    weights = observed(combiner, torch.tensor([[0.0, 1.0], [0.0, 0.9], [2.0, 0.8], [1.0, 0.7]], dtype=torch.float64))
    assert weights.isfinite().all()


@pytest.mark.parametrize("form", ["paper", "code"])
def test_losses_that_stand_still_weight_all_tasks_alike(form):
    torch.testing.assert_close(observed(CoBa(form, 5, 2), ONES.expand(12, 3)), ONES / 3)
    assert observed(CoBa(form, 5, 2), torch.zeros(12, 3)).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_coba_does_not_depend_on_the_unit_of_a_loss(form):
    generator = torch.Generator().manual_seed(3)
    losses = torch.rand(30, 3, generator=generator, dtype=torch.float64) + 0.5
    unit = torch.tensor([1e-12, 1.0, 1e12], dtype=torch.float64)
    torch.testing.assert_close(observed(CoBa(form, 5, 2), losses * unit), observed(CoBa(form, 5, 2), losses))


@pytest.mark.parametrize("form", ["paper", "code"])
def test_coba_tasks_in_another_order_get_the_same_weights(form):
    generator = torch.Generator().manual_seed(4)
    losses, order = torch.rand(30, 4, generator=generator, dtype=torch.float64) + 0.5, [2, 0, 3, 1]
    torch.testing.assert_close(
        observed(CoBa(form, 5, 2), losses[:, order]), observed(CoBa(form, 5, 2), losses)[order], rtol=1e-9, atol=0
    )


def test_a_late_task_keeps_its_share_until_its_own_warm_up_is_over():
    combiner = CoBa(window=10, warmup=3)
    combiner.bind(["qa", "ner", "late"])
    for losses in curves(-0.03, -0.01, num=8):
        combiner.observe(losses, tasks=[0, 1])
    for losses in curves(-0.03, -0.01, -0.02, num=2, start=0.7):
        combiner.observe(losses)
        assert combiner.weights(None, ONES)[2].item() == pytest.approx(1 / 3)
    combiner.observe(torch.tensor([0.6, 0.6, 0.6]))
    assert combiner.weights(None, ONES)[2].item() != pytest.approx(1 / 3)


def test_the_state_of_a_task_that_is_not_observed_is_untouched():
    combiner = CoBa(window=4, warmup=2)
    combiner.bind(["qa", "ner", "anger"])
    observed(combiner, curves(-0.03, -0.01, -0.02, num=9))
    before = copy.deepcopy(combiner.state_dict())
    for losses in curves(-0.03, -0.01, num=9, start=0.7):
        combiner.observe(losses, tasks=[2, 0])
    for name, value in combiner.state_dict().items():
        if isinstance(value, Tensor) and value.shape[:1] == (3,):
            assert torch.equal(value[1], before[name][1]), name


@pytest.mark.parametrize("form", ["paper", "code"])
def test_coba_fresh_combiner_continues_from_a_checkpoint(form, tmp_path):
    generator = torch.Generator().manual_seed(5)
    losses = torch.rand(30, 3, generator=generator, dtype=torch.float64) + 0.5
    combiner, fresh = CoBa(form, 5, 2), CoBa(form, 5, 2)
    observed(combiner, losses[:17])
    torch.save(combiner.state_dict(), tmp_path / "combiner.pt")
    fresh.load_state_dict(torch.load(tmp_path / "combiner.pt", weights_only=True))
    assert torch.equal(observed(fresh, losses[17:]), observed(combiner, losses[17:]))


def test_a_checkpoint_is_not_changed_by_further_observations_and_reset_forgets_them():
    combiner, losses = CoBa(window=5, warmup=2), curves(-0.01, 0.01, -0.02, num=12)
    early = observed(combiner, losses[:6])
    state = copy.deepcopy(combiner.state_dict())
    late = observed(combiner, losses[6:])
    fresh = CoBa(window=5, warmup=2)
    fresh.load_state_dict(state)
    assert torch.equal(observed(fresh, losses[6:]), late)
    combiner.reset()
    assert torch.equal(observed(combiner, losses[:6]), early)


def test_a_factor_for_constant_slopes_is_one_and_falls_where_the_worst_task_diverges():
    assert divergence_factor(np.full(50, -0.1), 5.0) == pytest.approx(1.0)
    assert divergence_factor(np.zeros(5), 5.0) == pytest.approx(1.0)
    assert divergence_factor(np.append(np.full(50, -0.1), 0.1), 5.0) < 1e-3
    assert divergence_factor(np.append(np.full(50, -0.1), -0.2), 5.0) > 1


def test_coba_arguments_and_losses_are_checked():
    with pytest.raises(ValueError, match="`form` must be one of paper, code, got 'soft'"):
        CoBa("soft")
    with pytest.raises(ValueError, match="`window` must be a whole number of at least 2, got 1"):
        CoBa(window=1)
    with pytest.raises(ValueError, match="`warmup` must be a whole number of at least 2, got 0"):
        CoBa(warmup=0)
    with pytest.raises(ValueError, match="`tau` must be a number above 0, got 0"):
        CoBa(tau=0)
    combiner = CoBa()
    combiner.bind(["qa", "投诉"])
    with pytest.raises(ValueError, match="loss of task `投诉` must be at least 0 for CoBa, got -1"):
        combiner.observe(torch.tensor([1.0, -1.0]))
    assert combiner.clock == 0
