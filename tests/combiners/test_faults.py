"""Faults seen in other implementations: for each, the tests that would catch it here.

`CAUGHT_BY` is the list; the tests below are those that had no better place.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from references.contract_inputs import LOSSES, jacobian

from mtl_opt.combiners import COMBINERS, Mean, PCGrad, Scoped, Sum

TESTS = Path(__file__).parents[1]

CAUGHT_BY = {
    "1 the order of projections is never shuffled": [
        "combiners/test_pcgrad.py::test_every_order_of_the_others_is_drawn_and_no_task_meets_itself_twice",
        "combiners/test_pcgrad.py::test_the_order_changes_the_result_from_step_to_step",
        "combiners/test_gradvac.py::test_orders_are_drawn_anew_and_reproducible",
    ],
    "2 a switch between sum and mean has no effect": ["combiners/test_faults.py::test_sum_and_mean_are_two_methods"],
    "3 a zero gradient gives NaN": [
        "combiners/test_contract.py::test_awkward_gradients_give_finite_weights",
        "combiners/test_pcgrad.py::test_a_zero_gradient_conflicts_with_nobody",
    ],
    "4 an absent gradient becomes zeros": [
        "gradients/step/test_private_gradients.py::test_the_head_of_an_absent_task_keeps_no_gradient"
    ],
    "5 the graph is kept after the last task": [
        "gradients/test_task_gradients.py::test_the_graph_is_freed_after_the_backward",
        "combiners/test_contract.py::test_no_autograd_graph_goes_through",
    ],
    "6 surgery per parameter tensor passes for surgery": [
        "combiners/test_faults.py::test_surgery_per_tensor_is_another_update_than_surgery",
        "combiners/test_pcgrad.py::test_pcgrad_equals_the_projection_of_explicit_gradients",
    ],
    "7 parallel gradients break an inverse": [
        "combiners/test_contract.py::test_awkward_gradients_give_finite_weights",
        "combiners/test_imtl_g.py::test_parallel_gradients_share_the_progress",
    ],
    "8 one task": ["combiners/test_faults.py::test_one_task_alone_keeps_its_direction"],
    "9 dependent gradients, more tasks than parameters": [
        "combiners/test_contract.py::test_awkward_gradients_give_finite_weights",
        "combiners/test_promises.py::test_a_method_keeps_what_it_promises_and_the_table_leaves_nothing_out",
    ],
    "10 another dtype comes back": [
        "combiners/test_contract.py::test_the_combined_gradient_has_the_shape_and_dtype_of_the_rows",
        "combiners/test_contract.py::test_half_precision_rows_are_combined_in_float32",
    ],
    "11 the leak of GradDrop is inverted": ["combiners/test_graddrop.py::test_the_leak_is_the_share_that_is_kept"],
    "12 a method trains nothing": [
        "training/run/test_loop.py::test_every_combiner_learns_and_moves_every_shared_parameter"
    ],
    "13 weight decay pulls at learnt task weights": [
        "combiners/test_contract.py::test_it_owns_no_parameter_that_an_optimizer_could_find",
    ],
    "14 GradNorm lowers the weight of a lagging task": [
        "combiners/test_gradnorm.py::test_the_weight_of_a_lagging_task_rises",
    ],
    "15 accumulated batches are not one large batch": [
        "gradients/engines/test_one_pass.py::test_accumulated_rows_equal_plain_backwards_over_one_large_batch",
        "training/run/test_step.py::test_two_micro_batches_give_the_step_of_one_with_the_same_rows",
    ],
    "18 an overflow changes the state": [
        "combiners/test_contract.py::test_a_gradient_that_is_not_finite_names_its_task_and_changes_no_state",
        "combiners/test_contract.py::test_a_loss_that_is_not_finite_names_its_task_and_changes_no_state",
        "training/run/test_step.py::test_a_step_that_is_not_finite_is_not_taken_and_names_its_task",
    ],
    "19 a batch without some task": [
        "combiners/test_contract_state.py::test_the_state_of_an_absent_task_is_untouched",
        "combiners/test_contract_state.py::test_a_task_may_come_late_or_alone",
        "gradients/test_writing.py::test_combine_gives_absent_tasks_to_no_combiner",
    ],
    "20 state is missing from the checkpoint": [
        "combiners/test_contract_state.py::test_a_fresh_combiner_continues_from_a_checkpoint",
        "combiners/test_tracking.py::test_tracking_fresh_combiner_continues_from_a_checkpoint",
        "training/run/test_checkpoint.py::test_from_every_checkpoint_the_run_ends_in_the_same_bits",
    ],
    "21 a solver fails in silence": [
        "combiners/test_notes.py::test_every_fallback_says_so_once_per_step_and_only_then",
        "combiners/test_notes.py::test_a_solve_that_does_not_end_warns_once_and_is_noted_in_every_step",
        "training/setup/test_combiner.py::test_notes_reach_the_event_the_log_and_tensorboard",
    ],
    "22 freedom from conflict is claimed and not kept": [
        "combiners/test_promises.py::test_a_method_keeps_what_it_promises_and_the_table_leaves_nothing_out",
        "combiners/test_conflict_free.py::test_it_is_conflict_free_only_for_independent_gradients",
    ],
    "23 methods differ on two tasks where they are the same": [
        "combiners/test_promises.py::test_two_tasks_identities_hold_with_their_lengths",
    ],
    "24 seeds do not repeat a run, or come from the global generator": [
        "combiners/test_contract_state.py::test_the_global_generators_are_neither_read_nor_moved",
        "combiners/test_pcgrad.py::test_pcgrad_seeds_are_reproducible_and_different",
    ],
    "25 the import breaks on a new NumPy or torch": ["combiners/test_faults.py::test_the_import_is_free_of_warnings"],
}
"""Faults 16 and 17 are of data parallelism: no combiner takes part in them."""


@cache
def names_in(path):
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("fault", CAUGHT_BY)
def test_the_tests_that_are_named_exist(fault):
    for test in CAUGHT_BY[fault]:
        path, name = test.split("::")
        assert name in names_in(path), test


def test_every_fault_that_touches_combiners_is_listed():
    assert [int(fault.split()[0]) for fault in CAUGHT_BY] == [n for n in range(1, 26) if n not in {16, 17}]


def test_sum_and_mean_are_two_methods():
    rows = jacobian(4)
    torch.testing.assert_close(Sum()(rows), rows.sum(0))
    torch.testing.assert_close(Mean()(rows), rows.sum(0) / 4)


def test_surgery_per_tensor_is_another_update_than_surgery():
    rows = torch.tensor([[2.0, 0.0, 1.0], [-1.0, 0.0, 5.0]])  # a conflict in the first tensor, none in all
    tensors = {"a": rows[:, :2], "b": rows[:, 2:]}
    weights = Scoped(PCGrad(), by="tensor").weights({name: part @ part.T for name, part in tensors.items()})
    per_tensor = torch.cat([weights[name] @ part for name, part in tensors.items()])
    assert PCGrad()(rows).tolist() == [1, 0, 6]
    assert per_tensor.tolist() == [0, 0, 6]


@pytest.mark.parametrize("name", sorted(COMBINERS))
def test_one_task_alone_keeps_its_direction(name):
    rows, combiner = jacobian(1), COMBINERS[name]()
    for _ in range(2):
        combined = combiner(torch.stack([rows, rows]) if combiner.requires == "halves" else rows, LOSSES[:1])
        if name == "graddrop":  # each coordinate has one sign, so nothing is dropped
            torch.testing.assert_close(combined, rows[0])
        assert float(torch.cosine_similarity(combined, rows[0], dim=0)) == pytest.approx(1.0)


def test_the_import_is_free_of_warnings():
    command = [sys.executable, "-W", "error", "-c", "import mtl_opt.combiners, mtl_opt.linalg"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, check=False)
    assert found.returncode == 0, found.stderr
