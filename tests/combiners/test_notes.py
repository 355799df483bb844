"""What a combiner did instead of what its method says reaches whoever asks, once a step and in one sentence."""

import copy
import warnings

import pytest
import torch
from references.contract_inputs import LOSSES, jacobian

from mtl_opt.combiners import (
    COMBINERS,
    IMTLG,
    MGDA,
    PCD,
    AlignedMTL,
    AuxiliaryGate,
    CAGrad,
    ConFIG,
    DualProj,
    Every,
    FairGrad,
    Krum,
    NashMTL,
    NormMatched,
    PCGrad,
    PriorityProjection,
    Scoped,
    SDMGrad,
    Smoothed,
    TrimmedMean,
    UPGrad,
)

NAMES = ["qa", "投诉", "anger"]
OPPOSITE = torch.tensor([[1.0, 2.0], [-3.0, -6.0]], dtype=torch.float64)
CONFLICTING = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-0.5, -1.0]], dtype=torch.float64)
BALANCED = torch.tensor([[1.0, 0.85, 0.85], [0.85, 1.0, 0.5], [0.85, 0.5, 1.0]], dtype=torch.float64)


def balanced_lengths():
    """Scale the first gradient so that the weights of IMTL-G add up to 0."""
    raw = torch.linalg.solve(BALANCED, torch.ones(3, dtype=torch.float64))
    return torch.tensor([float(-raw[0] / (raw[1] + raw[2])), 1.0, 1.0], dtype=torch.float64)


# method: object, rows, present tasks of three, part of the sentence
FALLBACKS = {
    "krum": (Krum, jacobian(2), [0, 2], "`Krum`: 2 present tasks are fewer than the 3 it needs: the step"),
    "trimmed_mean": (TrimmedMean, jacobian(2), [0, 2], "`TrimmedMean`: 2 present tasks are fewer than the 3 it needs"),
    "pcd absent": (
        lambda: PCD("投诉"),
        jacobian(2),
        [0, 2],
        "`PCD`: the primary task `投诉` is absent: the step",
    ),
    "pcd impossible": (
        lambda: PCD(tau=0.1),
        torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, -2.0]]),
        [0, 1, 2],
        "`PCD`: no direction gives every task its progress: the step follows the primary task alone",
    ),
    "pcd zero": (
        PCD,
        torch.tensor([[0.0, 0.0], [0.0, 1.0]]),
        [0, 1],
        "`PCD`: the primary gradient is zero: the upd",
    ),
    "pcd opposite": (lambda: PCD(tau=0.0), OPPOSITE, [0, 1], "`PCD`: the constraints leave no direction"),
    "priority": (
        PriorityProjection,
        jacobian(2),
        [1, 2],
        "`PriorityProjection`: no task of `main` is present",
    ),
    "auxiliary": (AuxiliaryGate, jacobian(2), [1, 2], "`AuxiliaryGate`: no task of `main` is present"),
    "aligned_mtl": (
        AlignedMTL,
        torch.zeros(2, 3),
        [0, 1],
        "`AlignedMTL`: all gradients are zero: the step",
    ),
    "config": (ConFIG, OPPOSITE, [0, 1], "`ConFIG`: no direction has the preferred cosines to all gradients"),
    "nash_mtl": (NashMTL, OPPOSITE, [0, 1], "`NashMTL`: the gradients cancel (Pareto-stationary): the update is 0"),
    "fairgrad": (FairGrad, OPPOSITE, [0, 1], "`FairGrad`: the gradients cancel (Pareto-stationary): the update is 0"),
    "imtl_g": (
        IMTLG,
        torch.linalg.cholesky(BALANCED) * balanced_lengths()[:, None],
        [0, 1, 2],
        "`IMTLG`: the weights add up to 0 and cannot be scaled: the update is 0",
    ),
    "sdmgrad": (
        SDMGrad,
        torch.zeros(2, 2, 3),
        [0, 1],
        "`SDMGrad`: no task has a positive product of its two halves: the weights stay as they are",
    ),
}
SOLVERS = {"upgrad": UPGrad, "dualproj": DualProj, "mgda": MGDA, "cagrad": CAGrad, "pcd": PCD}
SOLVERS |= {"priority": lambda: PriorityProjection(main=[0, 1])}


@pytest.mark.filterwarnings("ignore:.*Pareto-stationary:RuntimeWarning")
@pytest.mark.parametrize("case", FALLBACKS)
def test_every_fallback_says_so_once_per_step_and_only_then(case):
    make, rows, tasks, sentence = FALLBACKS[case]
    combiner = make()
    combiner.bind(NAMES)
    for _ in range(2):
        combiner(rows, LOSSES[: len(tasks)], tasks=tasks)
        (note,) = combiner.take_notes()
        assert note.startswith(sentence)
        assert note.endswith(".")
        assert combiner.take_notes() == []


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solve_that_does_not_end_warns_once_and_is_noted_in_every_step(monkeypatch, name):
    def give_up(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("mtl_opt.combiners.common.solvers.nnls", give_up)
    monkeypatch.setattr("mtl_opt.combiners.common.solvers.active_set_solve", lambda *_: None)
    combiner = SOLVERS[name]()
    equal = torch.full((3,), 1 / 3, dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match=f"`{type(combiner).__name__}`: .*did not converge"):
        assert torch.allclose(combiner.weights(CONFLICTING @ CONFLICTING.T), equal)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            combiner.weights(CONFLICTING @ CONFLICTING.T)
        (note,) = combiner.take_notes()
        assert "did not converge: the step takes the" in note


def test_a_decomposition_that_does_not_end_takes_the_mean(monkeypatch):
    monkeypatch.setattr("mtl_opt.combiners.aligned_mtl.graded_svd", lambda _: None)
    rows = jacobian(3) * torch.tensor([[1e-6], [1.0], [1e6]])
    combiner = AlignedMTL()
    with pytest.warns(RuntimeWarning, match="`AlignedMTL`: the singular value decomposition did not converge"):
        assert combiner.weights(rows @ rows.T).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("name", sorted(COMBINERS))
def test_a_step_that_goes_by_the_method_leaves_no_note(name):
    combiner = COMBINERS[name]()
    rows = torch.rand(4, 9, dtype=torch.float64) + 0.1
    combiner(torch.stack([rows, rows]) if combiner.requires == "halves" else rows, LOSSES[:4])
    assert combiner.take_notes() == []


def test_wrappers_hand_over_the_notes_of_what_they_wrap():
    combiner = NormMatched(Every(Smoothed(Krum()), k=2))
    combiner.bind(NAMES)
    for asked in (True, False, True):
        combiner.weights(torch.eye(2), tasks=[0, 1])
        assert bool(combiner.take_notes()) is asked  # between, nobody asks Krum


def test_blocks_that_say_the_same_are_one_note():
    combiner = Smoothed(Scoped(Krum()))
    combiner.bind(NAMES)
    combiner.weights({"a": torch.eye(2), "b": torch.eye(2)}, tasks=[0, 1])
    assert len(combiner.take_notes()) == 1


def test_notes_nobody_takes_do_not_pile_up_and_travel_with_no_checkpoint():
    combiner = Krum()
    for _ in range(100):
        combiner.weights(torch.eye(2))
    assert "notes" not in str(combiner.state_dict())
    assert len(copy.deepcopy(combiner).take_notes()) == 1
    assert PCGrad().take_notes() == []
