"""Wrappers answer for what they wrap, and change only what they say."""

import copy

import pytest
import torch
from references.contract_inputs import LOSSES, jacobian, run

from mtl_opt.combiners import (
    COMBINERS,
    DBMTL,
    IMTLG,
    PCD,
    Every,
    GradNorm,
    Mean,
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


# --- what all of them promise -----------------------------------------------------------------------------------


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


def test_a_fresh_combiner_continues_from_a_checkpoint(make, tmp_path):
    combiner = make()
    combiner.bind(NAMES)
    run(combiner, 4)
    torch.save(combiner.state_dict(), tmp_path / "combiner.pt")
    fresh = make()
    fresh.load_state_dict(torch.load(tmp_path / "combiner.pt", weights_only=True))
    assert torch.equal(run(fresh, 4, first=4), run(combiner, 4, first=4))


def test_reset_restores_the_first_step(make):
    combiner = make()
    combiner.bind(NAMES)
    first = run(combiner, 5)
    combiner.reset()
    assert torch.equal(run(combiner, 5), first)


def test_a_task_may_come_late_or_alone(make):
    combiner = make()
    combiner.bind(NAMES)
    for tasks in ([2, 0], [1], None):
        assert run(combiner, 3, tasks=tasks).isfinite().all()


def test_the_state_of_an_absent_task_is_untouched(make):
    combiner = make()
    combiner.bind(NAMES)
    run(combiner, 2)
    before = copy.deepcopy(combiner.state_dict())
    run(combiner, 3, tasks=[0, 2], first=2)
    for name, value in combiner.state_dict().items():
        if isinstance(value, torch.Tensor) and value.shape[:1] == (3,):
            assert torch.equal(value[1], before[name][1]), name


def test_weights_and_forward_agree(make):
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


# --- NormMatched ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in COMBINERS if n not in {"gradnorm", "db_mtl"}])
def test_every_update_is_as_long_as_the_mean_gradient_and_keeps_its_direction(name):
    if COMBINERS[name].requires in {"halves", "window"}:
        return
    rows = jacobian(4, 9, seed=5)
    update, plain = NormMatched(COMBINERS[name]())(rows, LOSSES[:4]), COMBINERS[name]()(rows, LOSSES[:4])
    torch.testing.assert_close(update.norm(), rows.mean(0).norm())
    torch.testing.assert_close(torch.cosine_similarity(update, plain, dim=0), torch.tensor(1.0, dtype=torch.float64))


def test_an_update_of_zero_stays_zero():
    rows = torch.tensor([[1.0, 1.0], [-2.0, -2.0]], dtype=torch.float64)
    assert NormMatched(PCD(tau=0))(rows).tolist() == [0, 0]
    cancelled = NormMatched(COMBINERS["imtl_g"]())(rows)  # weights that cancel the rows up to rounding
    assert cancelled.abs().max() < 1e-12


def test_a_combiner_without_weights_is_matched_in_forward():
    rows = jacobian()
    assert float(NormMatched(MoCo())(rows).norm()) == pytest.approx(float(rows.mean(0).norm()))
    assert NormMatched(MoCo())(torch.zeros(2, 3)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`MoCo` has no weights"):
        NormMatched(MoCo()).weights(rows @ rows.T)


# --- Every ------------------------------------------------------------------------------------------------------


def test_weights_are_asked_for_once_in_k_steps():
    combiner, inner = Every(PCGrad(), k=3), PCGrad()
    found = run(combiner, 7)
    for step in range(7):
        rows = jacobian(seed=step // 3 * 3)
        if step % 3 == 0:
            wanted = inner.weights(rows @ rows.T)
        assert torch.equal(found[step], wanted)


def test_one_step_is_the_combiner_itself():
    assert torch.equal(run(Every(PCGrad(), k=1), 5), run(PCGrad(), 5))


def test_a_task_without_a_weight_makes_the_combiner_be_asked_at_once():
    combiner = Every(Mean(), k=10)
    combiner.bind(NAMES)
    assert combiner.weights(torch.eye(2), tasks=[0, 1]).tolist() == [0.5, 0.5]
    torch.testing.assert_close(combiner.weights(torch.eye(3)), torch.full((3,), 1 / 3))
    torch.testing.assert_close(combiner.weights(torch.eye(2), tasks=[0, 1]), torch.full((2,), 1 / 3))


def test_an_absent_task_keeps_its_weight():
    combiner = Every(Mean(), k=2)
    combiner.bind(NAMES)
    for tasks in (None, None, [0, 1]):
        combiner.weights(torch.eye(3 if tasks is None else 2), tasks=tasks)
    assert combiner.weights(torch.eye(3)).tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3])


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_number_of_steps_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match="`k` must be a whole number of at least 1, got"):
        Every(Sum(), k)


# --- Smoothed ---------------------------------------------------------------------------------------------------


def test_it_equals_the_recurrence_and_torchjd():
    from torchjd.aggregation import CRMOGMWeighting

    combiner, inner = Smoothed(IMTLG(), beta=0.7), IMTLG()
    peer = CRMOGMWeighting(_Same(inner), alpha=0.7)
    average = None
    for seed in range(6):
        gramian = jacobian(seed=seed) @ jacobian(seed=seed).T
        weights = IMTLG().weights(gramian)
        average = weights if average is None else 0.7 * average + 0.3 * weights
        found = combiner.weights(gramian)
        torch.testing.assert_close(found, average)
        torch.testing.assert_close(found, peer(gramian))


def test_a_late_task_starts_with_its_first_weight():
    combiner = Smoothed(Mean(), beta=0.5)
    combiner.bind(NAMES)
    combiner.weights(torch.eye(2), tasks=[0, 1])
    assert combiner.weights(torch.eye(3)).tolist() == pytest.approx([5 / 12, 5 / 12, 1 / 3])


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_share_of_the_past_out_of_range_is_refused(beta):
    with pytest.raises(ValueError, match="`beta` must be at least 0 and below 1, got"):
        Smoothed(Sum(), beta)


@pytest.mark.parametrize("wrap", [Smoothed, lambda c: Every(c, 2)])
def test_what_has_no_vector_of_weights_is_refused(wrap):
    with pytest.raises(ValueError, match="must wrap a combiner with weights; `MoCo` has none"):
        wrap(MoCo())


class _Same(torch.nn.Module):
    """Lend our weights to TorchJD's average."""

    def __init__(self, combiner):
        super().__init__()
        self.combiner = combiner

    def forward(self, gramian):
        return self.combiner.weights(gramian)
