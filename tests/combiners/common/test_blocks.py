"""Wrappers around Scoped keep one weight per task and block."""

import pytest
import torch
from references.contract_inputs import jacobian

from mtl_opt.combiners import PCD, Every, NormMatched, PCGrad, Scoped, Smoothed, Sum
from mtl_opt.combiners.common.blocks import BlockWeights, gramians_by_block

NAMES = ["qa", "投诉", "anger"]
WIDTHS = {"model.layers.0": 4, "model.layers.1": 5, "层": 2}


def blocks(seed, tasks=(0, 1, 2), names=tuple(WIDTHS)):
    found = {}
    for name in names:
        rows = jacobian(3, WIDTHS[name], seed=seed + WIDTHS[name])[list(tasks)]
        found[name] = rows @ rows.T
    return found


def test_weights_of_every_block_are_reused_for_k_steps():
    combiner, inner = Every(Scoped(PCD(tau=0.5)), k=2), Scoped(PCD(tau=0.5))
    for seed in range(6):
        if seed % 2 == 0:
            wanted = inner.weights(blocks(seed))
        found = combiner.weights(blocks(seed))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_weights_of_every_block_are_averaged_and_absent_tasks_keep_theirs():
    combiner, inner = Smoothed(Scoped(PCGrad()), beta=0.7), Scoped(PCGrad())
    for one in (combiner, inner):
        one.bind(NAMES)
    average = {name: torch.full((3,), torch.nan, dtype=torch.float64) for name in WIDTHS}
    for seed, tasks in enumerate(([0, 1], [0, 1, 2], [2, 0], [0, 1, 2])):
        wanted = inner.weights(blocks(seed, tasks), tasks=tasks)
        found = combiner.weights(blocks(seed, tasks), tasks=tasks)
        for name in WIDTHS:
            past = average[name][tasks]
            average[name][tasks] = torch.where(past.isnan(), wanted[name], 0.7 * past + 0.3 * wanted[name])
            torch.testing.assert_close(found[name], average[name][tasks])


def test_blocks_may_come_in_another_order():
    one, other = (Smoothed(Scoped(PCD(tau=0.5)), beta=0.5) for _ in range(2))
    for seed in range(3):
        order = tuple(WIDTHS) if seed == 0 else tuple(reversed(WIDTHS))
        found, wanted = one.weights(blocks(seed, names=order)), other.weights(blocks(seed))
        assert all(torch.equal(found[name], wanted[name]) for name in WIDTHS)


@pytest.mark.parametrize(
    "build",
    [
        lambda: NormMatched(Every(Smoothed(Scoped(PCGrad()), beta=0.5), k=2)),
        lambda: Every(Scoped(PCGrad()), k=3),
        lambda: NormMatched(Smoothed(PCGrad())),
    ],
)
def test_state_survives_a_checkpoint_and_reset(build, tmp_path):
    def take(combiner, seed):
        given = blocks(seed) if combiner.by else blocks(seed)["层"]
        found = combiner.weights(given)
        return torch.cat(list(found.values())) if combiner.by else found

    combiner = build()
    combiner.bind(NAMES)
    first = [take(combiner, seed) for seed in range(4)]
    torch.save(combiner.state_dict(), tmp_path / "combiner.pt")
    fresh = build()
    fresh.load_state_dict(torch.load(tmp_path / "combiner.pt", weights_only=True))
    for seed in range(4, 8):
        assert torch.equal(take(fresh, seed), take(combiner, seed))
    combiner.reset()
    assert all(torch.equal(take(combiner, seed), first[seed]) for seed in range(4))


def test_the_norm_of_the_whole_update_is_that_of_the_mean_gradient():
    combiner = NormMatched(Every(Smoothed(Scoped(PCD(tau=0.5)), beta=0.5), k=2))
    for seed in range(4):
        gramians = blocks(seed)
        found = combiner.weights(gramians)
        squared = sum(float(w @ gramians[name] @ w) for name, w in found.items())
        assert squared == pytest.approx(sum(float(g.sum()) / 9 for g in gramians.values()))


def test_dtype_and_order_of_the_blocks_are_those_that_were_given():
    found = Smoothed(Scoped(PCGrad())).weights({name: g.float() for name, g in blocks(0).items()})
    assert list(found) == list(WIDTHS)
    assert all(w.dtype == torch.float32 for w in found.values())


@pytest.mark.parametrize("wrap", [Smoothed, NormMatched, lambda c: Every(c, 2)])
def test_what_does_not_fit_is_refused(wrap):
    combiner = wrap(Scoped(PCGrad()))
    with pytest.raises(ValueError, match="needs a mapping of blocks to Gramians, got Tensor"):
        combiner.weights(torch.eye(2))
    with pytest.raises(ValueError, match="needs one Gramian per block: call `weights`"):
        combiner(torch.eye(2))
    with pytest.raises(ValueError, match="takes one `gramian`, got one per block: wrap it in `Scoped`"):
        wrap(PCGrad()).weights(blocks(0))
    combiner.weights(blocks(0))
    with pytest.raises(ValueError, match=r"same blocks in every step, got a difference in \['层'\]"):
        combiner.weights(blocks(0, names=("model.layers.0", "model.layers.1")))


def test_a_gradient_of_any_block_that_is_not_finite_names_its_task():
    for wrap in (Smoothed, NormMatched, lambda c: Every(c, 2)):
        combiner = wrap(Scoped(PCGrad()))
        combiner.bind(NAMES)
        broken = blocks(0)
        broken["层"][1, 1] = torch.nan
        with pytest.raises(ValueError, match="gradient of task `投诉` is not finite"):
            combiner.weights(broken)


def test_one_gramian_is_the_only_block():
    assert list(gramians_by_block(torch.eye(2), None, "Every")) == [""]
    held = BlockWeights(2)
    held.split([""])
    held.value[:] = held.stacked(torch.tensor([1.0, 2.0]))
    assert held.per_block([1], torch.eye(2), torch.zeros(1)).tolist() == [2.0]
    assert Smoothed(Sum()).weights(None, torch.ones(2)).tolist() == [1, 1]
