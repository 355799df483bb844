"""GradDrop keeps one sign per coordinate, as often as its share says."""

import numpy as np
import pytest
import torch
from references.contract_inputs import jacobian

from mtl_opt.combiners import GradDrop, Sum


def literal(gradients, uniform, leaks):
    """Follow equation 1 and Algorithm 1 with an explicit mask."""
    share = 0.5 * (1 + gradients.sum(0) / np.abs(gradients).sum(0))
    mask = (share > uniform) * (gradients > 0) + (share <= uniform) * (gradients < 0)
    return ((leaks + (1 - leaks) * mask) * gradients).sum(0)


def test_graddrop_golden_values(golden):
    first = {tuple(GradDrop(seed=seed)(golden).tolist()) for seed in range(20)}
    assert first == {(6.0, 2.0, 2.0), (-4.0, 2.0, 2.0)}


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0, [0.0, 0.2, 0.5, 1.0]])
def test_it_equals_the_mask_of_the_paper(leak):
    gradients = jacobian(4, 5000)
    uniform = torch.empty(5000, dtype=torch.float64).uniform_(generator=torch.Generator().manual_seed(7))
    wanted = literal(gradients.numpy(), uniform.numpy(), np.broadcast_to(leak, 4)[:, None])
    np.testing.assert_allclose(GradDrop(leak, seed=7)(gradients).numpy(), wanted, rtol=1e-12, atol=1e-13)


def test_both_signs_are_drawn_by_their_share():
    gradients = torch.tensor([[3.0], [-1.0]]).repeat(1, 100_000)
    combined = GradDrop()(gradients)
    assert set(combined.tolist()) == {3.0, -1.0}
    assert (combined > 0).double().mean().item() == pytest.approx(0.75, abs=0.01)


def test_coordinates_are_drawn_apart_and_anew_in_every_step():
    gradients = torch.tensor([[1.0], [-1.0]]).repeat(1, 64)
    combiner = GradDrop()
    steps = [tuple(combiner(gradients).tolist()) for _ in range(5)]
    assert len(set(steps)) == 5
    assert all(len(set(step)) == 2 for step in steps)


def test_graddrop_seeds_are_reproducible_and_different():
    gradients = jacobian(3, 200)
    assert torch.equal(GradDrop(seed=3)(gradients), GradDrop(seed=3)(gradients))
    assert not torch.equal(GradDrop(seed=3)(gradients), GradDrop(seed=4)(gradients))


@pytest.mark.parametrize(("leak", "kept"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_the_leak_is_the_share_that_is_kept(leak, kept):
    gradients = torch.tensor([[1.0], [-1.0]]).repeat(1, 1000)
    combined = GradDrop(leak)(gradients)
    # What is dropped leaks in: 1 - leak of the other sign remains missing.
    assert sorted(set(combined.tolist())) == pytest.approx(sorted({-(1 - kept), 1 - kept}))


def test_the_leaks_of_torchjd_agree_where_nothing_is_drawn():
    from torchjd.aggregation import GradDrop as Peer

    gradients = jacobian(3, 50).abs()
    leak = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(GradDrop(leak.tolist())(gradients), Peer(leak=leak)(gradients))
    torch.testing.assert_close(GradDrop()(gradients), Sum()(gradients))


def test_leaks_by_name_follow_the_tasks_that_are_present():
    gradients = torch.tensor([[1.0], [-1.0]]).repeat(1, 100)
    combiner = GradDrop({"qa": 0.0, "投诉": 0.5, "anger": 1.0})
    combiner.bind(["anger", "qa", "投诉"])
    assert set(combiner(gradients, tasks=[0, 1]).tolist()) == {0.0, 1.0}  # the first task is always kept


def test_a_small_sum_of_one_sign_survives_beside_a_large_one():
    gradients = torch.tensor([[1e8], [-1.0]]).repeat(1, 4)
    combiner = GradDrop()
    combiner.generator.manual_seed(0)
    seen = {float(v) for _ in range(3) for v in combiner(gradients)}
    assert seen <= {1e8, -1.0}


def test_a_coordinate_without_gradient_stays_zero():
    assert torch.equal(GradDrop()(torch.zeros(3, 5)), torch.zeros(5))


@pytest.mark.parametrize("num_params", [1, 1023, 70_001])
def test_graddrop_blocks_of_columns_leave_no_seam(num_params):
    gradients = jacobian(3, num_params, dtype=torch.float32).abs()
    torch.testing.assert_close(GradDrop()(gradients), gradients.sum(0))


def test_a_refused_step_draws_nothing():
    gradients = jacobian(3, 9)
    combiner, untouched = GradDrop(), GradDrop()
    for one in (combiner, untouched):
        one.bind(["qa", "投诉", "anger"])
    bad = gradients.clone()
    bad[1, 2] = torch.inf
    with pytest.raises(ValueError, match="gradient of task `投诉` is not finite"):
        combiner(bad)
    assert torch.equal(combiner(gradients), untouched(gradients))


def test_a_checkpoint_continues_the_draws():
    gradients = jacobian(3, 50)
    combiner, fresh = GradDrop([0.1, 0.2, 0.3]), GradDrop([0.1, 0.2, 0.3])
    combiner(gradients)
    fresh.load_state_dict(combiner.state_dict())
    assert torch.equal(fresh(gradients), combiner(gradients))


def test_graddrop_weights_and_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`GradDrop` has no weights for a Gramian"):
        GradDrop().weights(torch.eye(2))
    for leak in (-0.1, 1.1, [0.5, 2.0], float("nan")):
        with pytest.raises(ValueError, match=r"`leak` must be in \[0, 1\], got"):
            GradDrop(leak)
    with pytest.raises(ValueError, match="`leak` must be 3 numbers, one per task, got 2"):
        GradDrop([0.1, 0.2]).bind(["qa", "投诉", "anger"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_draws_there_reproducibly():
    gradients = jacobian(4, 5000, dtype=torch.float32).cuda()
    combined = GradDrop(seed=2)(gradients)
    assert combined.is_cuda
    assert torch.equal(combined, GradDrop(seed=2)(gradients))
