"""What every combiner of the registry promises of one call; a new method is tested by being entered there."""

import pytest
import torch
from references.contract_inputs import LOSSES, given, jacobian

from mtl_opt.combiners import Combiner

# --- class and call ---------------------------------------------------------------------------------------------


def test_it_constructs_without_arguments_and_says_where_it_is_from(make):
    assert isinstance(make(), Combiner)
    assert make.__doc__
    assert "https://" in make.paper
    assert make.scale
    assert make.requires in {"losses", "gramian", "halves", "window", "jacobian"}
    assert make.observes in {"nothing", "batch", "validation"}


def test_it_owns_no_parameter_that_an_optimizer_could_find(make):
    combiner = make()
    combiner.bind(["qa", "anger"])
    assert not list(combiner.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_combined_gradient_has_the_shape_and_dtype_of_the_rows(make, dtype):
    combined = make()(given(make, jacobian(dtype=dtype)), LOSSES[:3].to(dtype))
    assert combined.shape == (7,)
    assert combined.dtype == dtype
    assert combined.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_have_the_length_and_dtype_of_the_gramian(make_weighted, dtype):
    rows = jacobian(dtype=dtype)
    weights = make_weighted().weights(rows @ rows.T, LOSSES[:3])
    assert weights.shape == (3,)
    assert weights.dtype == dtype


def test_half_precision_rows_are_combined_in_float32(make_weighted):
    rows = torch.tensor([[1000.0, 1.0, 0.0], [-0.001, 0.001, 0.0]]).half()  # weights beyond the range of float16
    wanted = make_weighted()(given(make_weighted, rows.double()), LOSSES[:2])
    found = make_weighted()(given(make_weighted, rows), LOSSES[:2])
    torch.testing.assert_close(found.double(), wanted, rtol=2e-3, atol=1e-3)


def test_no_autograd_graph_goes_through(make):
    rows = jacobian().requires_grad_()
    losses = LOSSES[:3].clone().requires_grad_()
    combiner = make()
    assert not combiner(given(make, rows), losses).requires_grad
    assert not any(value.requires_grad for value in combiner.state_dict().values() if isinstance(value, torch.Tensor))


def test_input_is_left_as_it_was(make):
    rows, losses = jacobian(), LOSSES[:3].clone()
    make()(given(make, rows), losses)
    assert torch.equal(rows, jacobian())
    assert torch.equal(losses, LOSSES[:3])


def test_weights_and_forward_agree(make_weighted):
    by_weights, by_forward = make_weighted(), make_weighted()
    for step in range(3):
        rows = jacobian(seed=step)
        torch.testing.assert_close(
            by_weights.weights(rows @ rows.T, LOSSES[:3]) @ rows,
            by_forward(given(make_weighted, rows), LOSSES[:3]),
            rtol=1e-9,
            atol=1e-12,
        )


def test_a_method_of_losses_alone_needs_no_gramian(make_weighted):
    if make_weighted.requires != "losses":
        with pytest.raises(ValueError, match=r"needs a `gramian` \[tasks, tasks\], got None"):
            make_weighted().weights(None, LOSSES[:3])
        return
    rows = jacobian()
    weights = make_weighted().weights(None, LOSSES[:3])
    torch.testing.assert_close(weights, make_weighted().weights(rows @ rows.T, LOSSES[:3]))


# --- awkward gradients ------------------------------------------------------------------------------------------

AWKWARD = {
    "zeros": torch.zeros(3, 4, dtype=torch.float64),
    "one zero row": jacobian() * torch.tensor([[1.0], [0.0], [1.0]]),
    "parallel": jacobian(1).repeat(3, 1) * torch.tensor([[1.0], [2.0], [1e-6]]),
    "equal": jacobian(1).repeat(3, 1),
    "opposite": torch.cat([jacobian(1), -jacobian(1)]),
    "nearly opposite": torch.cat([jacobian(1), -jacobian(1) * (1 + 1e-9)]),
    "rank deficient": jacobian(4, 2) @ jacobian(2, 9, seed=2),
    "more tasks than parameters": jacobian(8, 3),
    "one task": jacobian(1),
    "one zero task": torch.zeros(1, 5, dtype=torch.float64),
    "norms far apart": jacobian(4) * torch.logspace(-6, 6, 4, dtype=torch.float64)[:, None],
}


@pytest.mark.filterwarnings("ignore:.*Pareto-stationary:RuntimeWarning")  # said of rows that cancel
@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15, 1e30])  # of the Gramian
def test_awkward_gradients_give_finite_weights(make, case, scale):
    rows = AWKWARD[case] * scale**0.5
    combiner = make()
    for _ in range(3):
        assert combiner(given(make, rows), LOSSES[: len(rows)]).isfinite().all()


@pytest.mark.filterwarnings("ignore:.*Pareto-stationary:RuntimeWarning")  # said of rows that cancel
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_awkward_gradients_in_float32_give_finite_weights(make_weighted, scale):
    for case in AWKWARD.values():
        rows = case.float() * scale**0.5
        assert make_weighted().weights(rows @ rows.T, LOSSES[: len(rows)]).isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_names_its_task_and_changes_no_state(make, value):
    rows = jacobian()
    rows[1, 4] = value
    combiner, untouched = make(), make()
    for one in (combiner, untouched):
        one.bind(["qa", "投诉", "anger"])
        one(given(make, jacobian(seed=2)), LOSSES[:3])
    with pytest.raises(ValueError, match="gradient of task `投诉` is not finite"):
        combiner(given(make, rows), LOSSES[:3])
    for seed in (3, 4):
        step = given(make, jacobian(seed=seed)), LOSSES[:3] / seed
        assert torch.equal(combiner(*step), untouched(*step))


def test_a_loss_that_is_not_finite_names_its_task_and_changes_no_state(make):
    combiner, untouched = make(), make()
    for one in (combiner, untouched):
        one.bind(["qa", "投诉", "anger"])
    with pytest.raises(ValueError, match="loss of task `anger` is not finite"):
        combiner(given(make, jacobian()), torch.tensor([1.0, 1.0, torch.nan]))
    with pytest.raises(ValueError, match="loss of task `投诉` is not finite"):
        combiner(given(make, jacobian()[1:]), torch.tensor([torch.inf, 1.0]), tasks=[1, 2])
    assert torch.equal(combiner(given(make, jacobian()), LOSSES[:3]), untouched(given(make, jacobian()), LOSSES[:3]))


# --- symmetry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_tasks", [2, 4])
def test_tasks_in_another_order_get_the_same_weights(
    make_weighted, num_tasks, order_dependent, drawn_weights, first_by_name
):
    if drawn_weights or (num_tasks > 2 and order_dependent):
        return
    order = torch.tensor([1, 0] if num_tasks == 2 else [2, 0, 3, 1])
    one, other = make_weighted(**first_by_name), make_weighted(**first_by_name)
    names = ["qa", "投诉", "anger", "0"][:num_tasks]
    one.bind(names)
    other.bind([names[t] for t in order])
    for step in range(3):
        rows, losses = jacobian(num_tasks, seed=step), LOSSES[:num_tasks] / (1 + step)
        weights = one.weights(rows @ rows.T, losses)
        permuted = other.weights(rows[order] @ rows[order].T, losses[order])
        torch.testing.assert_close(permuted, weights[order], rtol=1e-9, atol=1e-12)
