"""Wrappers answer for what they wrap, and change only what they say."""

import copy

import pytest
import torch
from references.contract_inputs import LOSSES, jacobian, run

from mtl_opt.combiners import (
    COMBINERS,
    DBMTL,
    PCD,
    Every,
    GradNorm,
    MoCo,
    NormMatched,
    PCGrad,
    Scoped,
    Smoothed,
    Sum,
    UncertaintyWeighting,
)

NAMES = ["qa", "投诉", "anger"]
NESTED = {
    "norm_matched": lambda: NormMatched(PCGrad(seed=1)),
    "every": lambda: Every(PCD(tau=0.5), k=3),
    "smoothed": lambda: Smoothed(UncertaintyWeighting(lr=0.3), beta=0.5),
    "all": lambda: NormMatched(Smoothed(Every(GradNorm(lr=0.3, layers="all"), k=2), beta=0.5)),
}


@pytest.fixture(params=NESTED)
def make(request):
    def build():
        return NESTED[request.param]()

    return build


def test_none_is_in_the_registry():
    assert not {NormMatched, Every, Smoothed, Scoped} & set(COMBINERS.values())


@pytest.mark.parametrize("wrap", [NormMatched, Smoothed, lambda c: Every(c, 2)])
def test_it_answers_for_what_it_wraps(wrap):
    assert wrap(GradNorm(layers="last")).over == "last"
    assert wrap(GradNorm(layers=["a.b"])).over == ["a.b"]
    assert wrap(DBMTL(beta=0)).requires == "gramian"
    inner = Sum()
    inner.observes = "batch"
    assert wrap(inner).observes == "batch"


def test_losses_alone_are_enough_only_where_no_norm_is_matched():
    assert Every(Sum(), 2).requires == Smoothed(Sum()).requires == "losses"
    assert Smoothed(Sum()).weights(None, LOSSES[:3]).tolist() == [1, 1, 1]
    assert NormMatched(Sum()).requires == "gramian"


def test_names_reach_the_wrapped_combiner_and_errors_name_the_task(make):
    combiner = make()
    combiner.bind(NAMES)
    rows = jacobian()
    rows[1, 2] = torch.nan
    with pytest.raises(ValueError, match="gradient of task `投诉` is not finite"):
        combiner(rows, LOSSES[:3])
    assert all(part.tasks == tuple(NAMES) for part in combiner.modules() if hasattr(part, "tasks"))


def test_a_bind_that_the_wrapped_combiner_refuses_leaves_both_unbound():
    combiner = Smoothed(PCD(primary="summary"))
    with pytest.raises(ValueError, match="`primary` must name tasks"):
        combiner.bind(NAMES)
    assert combiner.tasks is None
    assert combiner.inner.tasks is None


def test_wrappers_fresh_combiner_continues_from_a_checkpoint(make, tmp_path):
    combiner = make()
    combiner.bind(NAMES)
    run(combiner, 4)
    torch.save(combiner.state_dict(), tmp_path / "combiner.pt")
    fresh = make()
    fresh.load_state_dict(torch.load(tmp_path / "combiner.pt", weights_only=True))
    assert torch.equal(run(fresh, 4, first=4), run(combiner, 4, first=4))


def test_wrappers_reset_restores_the_first_step(make):
    combiner = make()
    combiner.bind(NAMES)
    first = run(combiner, 5)
    combiner.reset()
    assert torch.equal(run(combiner, 5), first)


def test_wrappers_task_may_come_late_or_alone(make):
    combiner = make()
    combiner.bind(NAMES)
    for tasks in ([2, 0], [1], None):
        assert run(combiner, 3, tasks=tasks).isfinite().all()


def test_wrappers_state_of_an_absent_task_is_untouched(make):
    combiner = make()
    combiner.bind(NAMES)
    run(combiner, 2)
    before = copy.deepcopy(combiner.state_dict())
    run(combiner, 3, tasks=[0, 2], first=2)
    for name, value in combiner.state_dict().items():
        if isinstance(value, torch.Tensor) and value.shape[:1] == (3,):
            assert torch.equal(value[1], before[name][1]), name


def test_wrappers_weights_and_forward_agree(make):
    by_weights, by_forward = make(), make()
    for seed in range(4):
        rows = jacobian(seed=seed)
        torch.testing.assert_close(
            by_weights.weights(rows @ rows.T, LOSSES[:3]) @ rows, by_forward(rows, LOSSES[:3]), rtol=1e-9, atol=1e-12
        )


def test_losses_observed_reach_the_wrapped_combiner():
    class Listener(Sum):
        def observe(self, losses, *, tasks=None):
            self.heard = losses, tasks

    combiner = NormMatched(Smoothed(Listener()))
    combiner.observe(LOSSES[:2], tasks=[0, 1])
    assert combiner.inner.inner.heard[1] == [0, 1]


@pytest.mark.parametrize("wrap", [Smoothed, lambda c: Every(c, 2)])
def test_what_has_no_vector_of_weights_is_refused(wrap):
    with pytest.raises(ValueError, match="must wrap a combiner with weights; `MoCo` has none"):
        wrap(MoCo())
