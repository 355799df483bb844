"""Scoped runs one copy of a combiner per block."""

import pytest
import torch
from references.contract_inputs import jacobian

from mtl_opt.combiners import PCD, GradNorm, MoCo, NormMatched, PCGrad, Scoped, Smoothed, Sum

NAMES = ["qa", "投诉", "anger"]


def blocks(seed, num_tasks=3, tasks=None):
    found = {}
    for name, width in (("model.layers.0", 4), ("model.layers.1", 5), ("head", 2)):
        rows = jacobian(num_tasks, width, seed=seed + width)
        rows = rows if tasks is None else rows[tasks]
        found[name] = rows @ rows.T
    return found


def flat(weights):
    return torch.cat(list(weights.values()))


def test_every_block_gets_the_weights_of_its_own_combiner():
    scoped = Scoped(PCD(tau=0.5, beta=0.5))
    alone = {name: PCD(tau=0.5, beta=0.5) for name in blocks(0)}
    for seed in range(4):
        for name, found in scoped.weights(blocks(seed)).items():
            assert torch.equal(found, alone[name].weights(blocks(seed)[name]))


def test_it_answers_by_what_it_splits():
    scoped = Scoped(GradNorm(layers="last"), by="tensor")
    assert (scoped.by, scoped.over, scoped.requires) == ("tensor", "all", "gramian")
    assert NormMatched(Scoped(PCGrad())).by == "layer"
    assert Sum().by is None


def test_blocks_draw_orders_of_their_own():
    scoped = Scoped(PCGrad())
    same = dict.fromkeys(("a", "b"), jacobian(6, 4) @ jacobian(6, 4).T)
    found = [scoped.weights(same) for _ in range(5)]
    assert not torch.equal(torch.stack([f["a"] for f in found]), torch.stack([f["b"] for f in found]))


def test_the_state_of_blocks_survives_a_checkpoint_and_reset(tmp_path):
    def build():
        return NormMatched(Scoped(Smoothed(PCGrad(), beta=0.5)))

    combiner = build()
    combiner.bind(NAMES)
    first = [flat(combiner.weights(blocks(seed))) for seed in range(3)]
    torch.save(combiner.state_dict(), tmp_path / "combiner.pt")
    fresh = build()
    fresh.load_state_dict(torch.load(tmp_path / "combiner.pt", weights_only=True))
    for seed in range(3, 6):
        assert torch.equal(flat(fresh.weights(blocks(seed))), flat(combiner.weights(blocks(seed))))
    combiner.reset()
    assert all(torch.equal(flat(combiner.weights(blocks(seed))), first[seed]) for seed in range(3))


def test_absent_tasks_take_no_part_in_any_block():
    scoped = Scoped(Smoothed(PCGrad()))
    scoped.bind(NAMES)
    scoped.weights(blocks(0))
    before = [part.averaged.value.clone() for part in scoped.copies]
    assert all(len(found) == 2 for found in scoped.weights(blocks(1, tasks=[2, 0]), tasks=[2, 0]).values())
    assert all(torch.equal(part.averaged.value[1], old[1]) for part, old in zip(scoped.copies, before, strict=True))


def test_norms_are_matched_over_all_blocks_by_one_factor():
    scoped, matched = Scoped(PCD(tau=0.5)), NormMatched(Scoped(PCD(tau=0.5)))
    plain, found, gramians = scoped.weights(blocks(0)), matched.weights(blocks(0)), blocks(0)
    squared = sum(float(w @ gramians[name] @ w) for name, w in found.items())
    assert squared == pytest.approx(sum(float(g.sum()) / 9 for g in gramians.values()))
    ratio = flat(found)[flat(plain) > 0] / flat(plain)[flat(plain) > 0]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))


def test_it_fits_the_blocks_of_task_gradients(make_llama):
    from mtl_opt.gradients import TaskGradients

    model = make_llama()
    grads = TaskGradients(model, tasks=["qa", "anger"], engine="per_task")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 61, (2, 7), generator=generator)
    losses = torch.stack([model(input_ids=ids[t : t + 1], labels=ids[t : t + 1]).loss for t in range(2)])
    grads.backward(losses)
    scoped = Scoped(PCGrad())
    weights = scoped.weights(grads.gramian(by="layer"), grads.losses())
    grads.write(weights)
    assert len(weights) > 1
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_single_gramian_a_jacobian_and_other_blocks_are_refused():
    scoped = Scoped(PCGrad())
    with pytest.raises(ValueError, match="`Scoped` needs a mapping of blocks to Gramians, got Tensor"):
        scoped.weights(torch.eye(2))
    with pytest.raises(ValueError, match="`Scoped` needs one Gramian per block"):
        scoped(torch.eye(2))
    scoped.weights({"a": torch.eye(2), "b": torch.eye(2)})
    with pytest.raises(ValueError, match=r"same blocks in every step, got a difference in \['b'\]"):
        scoped.weights({"a": torch.eye(2)})


@pytest.mark.parametrize("inner", [Sum, MoCo, lambda: Scoped(PCGrad())])
def test_what_has_no_gramian_of_its_own_is_refused(inner):
    with pytest.raises(ValueError, match="`Scoped` must wrap a combiner that requires one Gramian"):
        Scoped(inner())


def test_unknown_blocks_are_refused():
    with pytest.raises(ValueError, match="`by` must be 'layer' or 'tensor', got 'row'"):
        Scoped(PCGrad(), by="row")
