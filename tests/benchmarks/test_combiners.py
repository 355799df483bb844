"""The benchmark of combiners runs, compares like with like, and says which targets apply."""

import json

import pytest
import torch

from benchmarks import combiners, peers

SMALL = ["--params", "3000", "--repeats", "2", "--warmup", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def threads():
    """Give torch back the threads it had: weights are timed on one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_json_holds_every_measurement_and_every_target(capsys):
    methods = "mean,pcgrad,mgda,modo,graddrop,trimmed_mean"
    combiners.main(["--json", "--methods", methods, "--weights-tasks", "3,40", *SMALL])
    result = json.loads(capsys.readouterr().out)
    assert result["benchmark"] == "combiners"
    assert {"cpu", "threads", "versions"} <= result["environment"].keys()
    forward = result["forward"]["methods"]
    assert forward.keys() == {"pcgrad", "mgda", "modo", "graddrop", "trimmed_mean", "trimmed_mean_2"}
    assert forward["pcgrad"]["ratio_to_floor"]["median"] > 0
    assert forward["graddrop"]["ratio_to_read"]["median"] > 0
    assert forward["trimmed_mean"]["peak_in_jacobians"] > 0
    assert [(part["tasks"], part["gradients"]) for part in result["weights"]] == [
        (3, "random"), (3, "stationary"), (40, "random"), (40, "stationary"),
    ]  # fmt: skip
    for part in result["weights"]:
        assert part["methods"].keys() == {"mean", "pcgrad", "mgda", "modo"}
        assert part["methods"]["mgda"]["torchjd_ratio"]["median"] > 0
        assert part["failed"] == {}
    limits = {target["name"]: target["at_most"] for target in result["targets"]}
    assert limits["mgda: forward / floor"] == limits["modo: forward / floor"] == 1.15
    assert limits["graddrop: forward / read"] == 8
    assert limits["trimmed_mean_2: forward / read"] == 6
    assert limits["mgda: seconds for weights, stationary"] == 3e-3
    assert limits["pcgrad: seconds for weights, random"] == 1e-3


@pytest.mark.slow
def test_the_table_names_what_was_measured(capsys):
    combiners.main(["--methods", "upgrad,trimmed_mean", "--weights-tasks", "3", "--no-peers", *SMALL])
    shown = capsys.readouterr().out
    assert "forward: 8 tasks x 3000 parameters" in shown
    assert "weights: 3 tasks, stationary gradients" in shown
    assert "targets met" in shown
    assert "torchjd" not in shown


@pytest.mark.slow
def test_rows_are_held_in_blocks_of_columns():
    settings = combiners.arguments(["--params", "1000000", "--repeats", "1", "--warmup", "1", "--device", "cpu"])
    found = combiners.measure_forward(["graddrop", "trimmed_mean"], settings, torch.device("cpu"))
    for name, one in found["methods"].items():
        assert one["peak_in_jacobians"] < 1, name


@pytest.mark.filterwarnings("ignore::UserWarning")  # how a peer uses its solver
def test_every_peer_is_a_combiner_here_and_answers_for_each_task():
    gradients = combiners.gradients(3, 12, torch.device("cpu"))
    for name in peers.PEER:
        assert name in combiners.COMBINERS
        if not peers.missing(name):
            answer = peers.peer(name, 3)(gradients, gradients @ gradients.T)
            assert answer.shape in {(3,), (12,)}
            assert answer.isfinite().all()


def test_stationary_gradients_add_up_to_zero():
    rows = combiners.gradients(5, 20, torch.device("cpu"), stationary=True)
    assert rows.sum(0).abs().max() < 1e-5


def test_a_failure_is_told_not_raised():
    assert peers.failure(lambda: 1 / 0) == "ZeroDivisionError: division by zero"
    assert peers.failure(lambda: None) == ""


def test_an_unknown_method_is_refused(capsys):
    with pytest.raises(SystemExit):
        combiners.arguments(["--methods", "upgrad,magic"])
    assert "unknown magic" in capsys.readouterr().err
