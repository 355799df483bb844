"""Corrected cosines on gradients whose true cosine is known, and the jackknife against a literal one."""

import math

import pytest
import torch
from references import diagnostics_reference as reference

from mtl_opt.monitor.noise_correction import AGREEMENT, CONFLICT, NOISE, correct_noise


def sample(cosine, snr, *, length=(1.0, 1.0), blocks=10, per_block=10, params=200, seed=0):
    """Draw gradients around two expected ones, and form the unbiased estimates of METHODS.md §6 block by block."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.zeros(2, params, dtype=torch.float64)
    true[0, 0], true[1, 0], true[1, 1] = 1, cosine, math.sqrt(1 - cosine**2)
    true *= torch.tensor(length)[:, None]
    noise = torch.randn(blocks, per_block, 2, params, generator=generator, dtype=torch.float64)
    gradients = true + noise * true.norm(dim=1)[:, None] / math.sqrt(snr * params)
    sums, squares = gradients.sum(1), gradients.square().sum((1, 3))
    product = sums @ sums.mT
    gramians = product / per_block**2
    signal = (product.diagonal(dim1=1, dim2=2) - squares) / (per_block * (per_block - 1))
    gramians.diagonal(dim1=1, dim2=2).copy_(signal)
    return gramians, squares / per_block, blocks * per_block


def test_the_interval_holds_the_true_cosine_as_often_as_it_says():
    for cosine in (-0.6, -0.1, 0.0, 0.65):
        found = [correct_noise(*sample(cosine, 0.1, seed=seed)) for seed in range(150)]
        defined = [f for f in found if f.cosines[0, 1].isfinite()]
        assert len(defined) > 140
        held = sum(bool(f.low[0, 1] <= cosine <= f.high[0, 1]) for f in defined) / len(defined)
        assert 0.90 <= held <= 0.99, (cosine, held)  # 95 % within three standard errors of 150 draws
        mean = sum(float(f.cosines[0, 1]) for f in defined) / len(defined)
        assert mean == pytest.approx(cosine, abs=0.02)


def test_raw_cosines_are_shrunk_and_corrected_ones_are_not():
    gramians, power, steps = sample(0.65, 0.1)
    raw = float(gramians[:, 0, 1].mean() / power.mean(0).prod().sqrt())
    assert raw < 0.1  # what everybody plots
    assert float(correct_noise(gramians, power, steps).cosines[0, 1]) == pytest.approx(0.65, abs=0.15)


@pytest.mark.parametrize(("cosine", "verdict"), [(-0.5, CONFLICT), (0.5, AGREEMENT)])
def test_verdicts_name_what_is_real(cosine, verdict):
    found = correct_noise(*sample(cosine, 0.2))
    assert found.verdict == [[None, verdict], [verdict, None]]
    assert found.steps == 100


def test_orthogonal_gradients_are_rarely_called_anything_but_noise():
    verdicts = [correct_noise(*sample(0.0, 0.2, seed=seed)).verdict[0][1] for seed in range(100)]
    assert verdicts.count(NOISE) >= 88  # 95 expected


def test_without_a_clear_signal_there_is_no_cosine_at_all():
    for seed in range(20):  # one task alone passes for clear in one of 20 draws
        found = correct_noise(*sample(-0.9, 1e-4, seed=seed))
        assert found.verdict == [[None, NOISE], [NOISE, None]]
        assert all(part[0, 1].isnan() for part in (found.cosines, found.low, found.high))


def test_one_noisy_task_does_not_take_the_other_pairs_with_it():
    clear, power, steps = sample(0.8, 0.5)
    weak = torch.zeros(10, 3, 3, dtype=torch.float64)
    weak[:, :2, :2] = clear
    weak[:, 2, 2] = torch.tensor([1.0, -1.0] * 5)
    found = correct_noise(weak, torch.cat([power, torch.full((10, 1), 50.0)], 1), steps)
    assert found.verdict == [[None, AGREEMENT, NOISE], [AGREEMENT, None, NOISE], [NOISE, NOISE, None]]
    assert found.cosines[2].isnan().all()
    assert found.signal_to_noise[2] == 0


def test_values_and_interval_are_those_of_the_literal_jackknife():
    gramians, power, steps = sample(0.3, 0.3, blocks=7)
    found = correct_noise(gramians, power, steps)
    columns = (gramians[:, 0, 1], gramians[:, 0, 0], gramians[:, 1, 1])
    wanted = reference.jackknifed_cosine(*(column.tolist() for column in columns))
    assert [float(part[0, 1]) for part in (found.cosines, found.low, found.high)] == pytest.approx(wanted)


def test_blocks_in_which_a_task_was_hardly_seen_are_left_out_for_its_pairs_only():
    gramians, power, steps = sample(0.3, 0.5)
    full = correct_noise(gramians[3:], power[3:], steps)
    gramians[:3, 1, :] = gramians[:3, :, 1] = torch.nan
    power[:3, 1] = torch.nan
    found = correct_noise(gramians, power, steps)
    torch.testing.assert_close(found.cosines[0, 1], full.cosines[0, 1])
    torch.testing.assert_close(found.low[0, 1], full.low[0, 1])
    assert found.signal_to_noise[1] == pytest.approx(float(full.signal_to_noise[1]))


def test_a_task_that_was_never_seen_has_no_verdict():
    gramians, power, steps = sample(0.3, 0.5)
    gramians[:, 1, :] = gramians[:, :, 1] = torch.nan
    power[:, 1] = torch.nan
    found = correct_noise(gramians, power, steps)
    assert found.verdict == [[None, None], [None, None]]
    assert found.signal_to_noise[1].isnan()
    assert found.cosines[0, 0] == 1


def test_two_blocks_are_too_few():
    gramians, power, steps = sample(0.3, 0.5)
    assert correct_noise(gramians[:2], power[:2], steps) is None
    assert correct_noise(gramians[:3], power[:3], steps) is not None


def test_signal_to_noise_is_that_of_a_single_step():
    found = correct_noise(*sample(0.3, 0.25, per_block=50, length=(1.0, 100.0)))
    assert found.signal_to_noise.tolist() == pytest.approx([0.25, 0.25], rel=0.15)
    assert found.cosines[0, 1] == pytest.approx(0.3, abs=0.1)
