"""What every combiner of the registry promises of its state, its tasks and its refusals."""

import copy
import pickle

import numpy as np
import pytest
import torch
from references.contract_inputs import LOSSES, given, jacobian, run

# --- state ------------------------------------------------------------------------------------------------------


def test_a_fresh_combiner_continues_from_a_checkpoint(make_weighted, tmp_path):
    combiner = make_weighted()
    combiner.bind(["qa", "投诉", "anger"])
    run(combiner, 3)
    torch.save(combiner.state_dict(), tmp_path / "combiner.pt")
    fresh = make_weighted()
    fresh.load_state_dict(torch.load(tmp_path / "combiner.pt", weights_only=True))
    assert fresh.tasks == ("qa", "投诉", "anger")
    assert torch.equal(run(fresh, 3, first=3), run(combiner, 3, first=3))


def test_a_bound_combiner_takes_a_checkpoint_of_its_tasks_and_no_other(make):
    saved = make()
    saved.bind(["qa", "anger"])
    same, other = make(), make()
    same.bind(["qa", "anger"])
    other.bind(["anger", "qa"])
    same.load_state_dict(saved.state_dict())
    with pytest.raises(ValueError, match=r"is bound to tasks \['anger', 'qa'\], got \['qa', 'anger'\]"):
        other.load_state_dict(saved.state_dict())


def test_an_unbound_state_loads_into_an_unbound_combiner(make):
    fresh = make()
    fresh.load_state_dict(make().state_dict())
    assert fresh.tasks is None


def test_a_checkpoint_is_not_changed_by_further_steps(make_weighted):
    combiner = make_weighted()
    run(combiner, 1)
    state = copy.deepcopy(combiner.state_dict())
    run(combiner, 2)
    early = make_weighted()
    early.load_state_dict(state)
    again = make_weighted()
    run(again, 1)
    assert torch.equal(run(early, 2, first=1), run(again, 2, first=1))


def test_copies_go_their_own_way(make_weighted):
    combiner = make_weighted()
    run(combiner, 2)
    for twin in (copy.deepcopy(combiner), pickle.loads(pickle.dumps(combiner))):
        control = copy.deepcopy(combiner)
        assert torch.equal(run(twin, 3, first=2), run(control, 3, first=2))


def test_reset_restores_the_first_step(make_weighted):
    combiner = make_weighted()
    combiner.bind(["qa", "投诉", "anger"])
    first = run(combiner, 4)
    combiner.reset()
    assert combiner.tasks == ("qa", "投诉", "anger")
    assert torch.equal(run(combiner, 4), first)
    untouched = make_weighted()
    untouched.reset()
    assert torch.equal(run(untouched, 4), first)


def test_the_state_of_an_absent_task_is_untouched(make_weighted):
    combiner = make_weighted()
    combiner.bind(["qa", "投诉", "anger"])
    run(combiner, 2)
    before = copy.deepcopy(combiner.state_dict())
    run(combiner, 3, tasks=[0, 2], first=2)
    after = combiner.state_dict()
    assert after.keys() == before.keys()
    for name, value in after.items():
        if isinstance(value, torch.Tensor) and value.shape[:1] == (3,):
            assert torch.equal(value[1], before[name][1]), name


def test_a_task_may_come_late_or_alone(make_weighted):
    combiner = make_weighted()
    combiner.bind(["qa", "投诉", "anger"])
    assert run(combiner, 2, tasks=[2, 0]).isfinite().all()
    assert run(combiner, 2, tasks=[1]).isfinite().all()
    assert run(combiner, 2).isfinite().all()


def test_present_tasks_may_come_in_any_order(make_weighted):
    one, other = make_weighted(), make_weighted()
    for combiner in (one, other):
        combiner.bind(["qa", "投诉", "anger"])
    torch.testing.assert_close(run(one, 3, tasks=[2, 0]), run(other, 3, tasks=[0, 2])[:, [1, 0]])


def test_moving_or_casting_it_changes_nothing(make_weighted):
    combiner, control = make_weighted(), make_weighted()
    run(combiner, 2), run(control, 2)
    combiner.to(torch.bfloat16).half().to("meta")
    assert torch.equal(run(combiner, 2, first=2), run(control, 2, first=2))


def test_the_global_generators_are_neither_read_nor_moved(make_weighted):
    seen = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the legacy global generator is what must not matter
        before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        seen.append(run(make_weighted(), 3, num_tasks=5))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(*seen)


# --- observing ---------------------------------------------------------------------------------------------------


def test_losses_may_be_observed_before_the_first_step_and_by_an_unbound_combiner(make_observer):
    combiner = make_observer()
    combiner.observe(LOSSES[:3])
    assert combiner.tasks == ("0", "1", "2")
    assert run(combiner, 3).isfinite().all()


def test_an_observed_loss_that_is_not_finite_names_its_task_and_changes_no_state(make_observer):
    combiner, untouched = make_observer(), make_observer()
    for one in (combiner, untouched):
        one.bind(["qa", "投诉", "anger"])
        run(one, 2)
    with pytest.raises(ValueError, match="loss of task `投诉` is not finite"):
        combiner.observe(torch.tensor([1.0, torch.nan, 1.0]))
    with pytest.raises(ValueError, match="loss of task `anger` is not finite"):
        combiner.observe(torch.tensor([1.0, torch.inf]), tasks=[0, 2])
    assert torch.equal(run(combiner, 3, first=2), run(untouched, 3, first=2))


@pytest.mark.parametrize("losses", [torch.ones(2), torch.ones(3, 1), torch.ones(())])
def test_another_number_of_observed_losses_is_refused(make_observer, losses):
    combiner = make_observer()
    combiner.bind(["qa", "投诉", "anger"])
    with pytest.raises(ValueError, match=r"rows were given for 3 tasks|one per task, got shape|at least one row"):
        combiner.observe(losses)


# --- refusals ---------------------------------------------------------------------------------------------------


def test_gradients_that_were_already_summed_are_refused(make):
    with pytest.raises(ValueError, match=r"`jacobian` must be \[(2, )?tasks, params\].*got shape \((2, )?7,?\)"):
        make()(given(make, jacobian().sum(0)), LOSSES[:3])


@pytest.mark.parametrize("shape", [(2, 3), (3,), (3, 3, 3), ()])
def test_a_gramian_that_is_not_square_is_refused_and_binds_nothing(make_weighted, shape):
    combiner = make_weighted()
    with pytest.raises(ValueError, match=r"`gramian` must be square \[tasks, tasks\], got shape"):
        combiner.weights(torch.ones(shape), LOSSES[:3])
    assert combiner.tasks is None


@pytest.mark.parametrize("gramian", [[[1.0, 2.0], [-2.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]])
def test_a_matrix_that_is_no_gramian_is_refused_except_as_products_of_two_samples(make_weighted, gramian):
    if make_weighted.requires == "halves":
        assert make_weighted().weights(torch.tensor(gramian), LOSSES[:2]).isfinite().all()
        return
    with pytest.raises(ValueError, match="`gramian` must be symmetric with a diagonal of squared norms"):
        make_weighted().weights(torch.tensor(gramian), LOSSES[:2])


@pytest.mark.parametrize("losses", [torch.ones(2), torch.ones(3, 1), torch.ones(())])
def test_another_number_of_losses_is_refused(make, losses):
    with pytest.raises(ValueError, match=r"`losses` must be \[3\], one per task, got shape"):
        make()(given(make, jacobian()), losses)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([0, 3], r"`tasks` must be different indices below 3, got \[0, 3\]"),
        ([-1, 0], r"`tasks` must be different indices below 3, got \[-1, 0\]"),
        ([1, 1], r"`tasks` must be different indices below 3, got \[1, 1\]"),
        ([0], r"2 rows were given for 1 tasks \(qa, 投诉, anger\)"),
        (None, r"2 rows were given for 3 tasks \(qa, 投诉, anger\)"),
        ([], r"2 rows were given for 0 tasks"),
    ],
)
def test_tasks_that_do_not_fit_the_rows_are_refused(make, tasks, message):
    combiner = make()
    combiner.bind(["qa", "投诉", "anger"])
    with pytest.raises(ValueError, match=message):
        combiner(given(make, jacobian(2)), LOSSES[:2], tasks=tasks)


def test_no_row_at_all_is_refused(make):
    for names in (None, ["qa", "anger"]):
        combiner = make()
        if names:
            combiner.bind(names)
        with pytest.raises(ValueError, match="at least one row is needed"):
            combiner(given(make, torch.zeros(0, 5)), torch.zeros(0), tasks=[] if names else None)


def test_indices_without_names_are_refused(make):
    with pytest.raises(ValueError, match=r"`tasks` can be given only after `bind\(names\)`"):
        make()(given(make, jacobian(2)), LOSSES[:2], tasks=[0, 1])


def test_a_bound_combiner_keeps_its_tasks(make):
    combiner = make()
    combiner.bind(["qa", "anger"])
    combiner.bind(("qa", "anger"))
    with pytest.raises(ValueError, match=r"is bound to tasks \['qa', 'anger'\], got \['qa', 'summary'\]"):
        combiner.bind(["qa", "summary"])


def test_an_unbound_combiner_binds_itself_to_numbers(make):
    combiner = make()
    combiner(given(make, jacobian()), LOSSES[:3])
    assert combiner.tasks == ("0", "1", "2")
    with pytest.raises(ValueError, match="2 rows were given for 3 tasks"):
        combiner(given(make, jacobian(2)), LOSSES[:2])


@pytest.mark.parametrize("names", [[], ["qa", "qa"]])
def test_names_must_be_different(make, names):
    with pytest.raises(ValueError, match="`tasks` must be at least one name, each once"):
        make().bind(names)
