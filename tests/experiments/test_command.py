"""The command line that all experiments share, and every experiment's quick run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments import command
from mtl_opt.errors import InputError

ROOT = Path(__file__).parents[2]
QUICK = ("toy_pareto", "gradnorm_synthetic", "uncertainty_regression", "multi_digits", "controlled_conflict", "llm")


def measured(options):
    return {"verdicts": {"数 is even": options.seed % 2 == 0}, "value": torch.tensor([1.0, float("inf")])}


def refused(_):
    raise InputError("There is no data.")


def test_one_json_object_on_stdout_and_progress_on_stderr(capsys):
    assert command.main(measured, arguments=["--json", "--seed", "3"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["verdicts"] == {"数 is even": False}
    assert found["value"] == [1.0, "inf"]
    assert found["environment"]["versions"]["torch"] == torch.__version__
    assert " s" in printed.err


def test_without_json_the_verdicts_are_text(capsys):
    command.main(measured, arguments=["--quick"])
    assert "  true   数 is even" in capsys.readouterr().out


def test_bad_input_is_one_sentence_and_exit_code_2(capsys):
    assert command.main(refused, arguments=["--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("error: There is no data.\n")
    with pytest.raises(SystemExit) as stopped:
        command.main(measured, arguments=["--jobs", "0"])
    assert stopped.value.code == 2


@pytest.mark.slow
def test_answers_come_in_the_order_of_the_calls_whatever_the_number_of_processes():
    calls = [(n, 2) for n in range(4)]
    assert command.in_processes(1, pow, calls, "calls") == command.in_processes(2, pow, calls, "calls") == [0, 1, 4, 9]


def run(name, *words, output):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = ["-m", f"experiments.{name}", "--json", "--output", str(output), *words]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NEGATIVE = {
    "T=2: GradNorm restores it: over half of the largest task's progress",
    "T=2: the task with σ = 100 pays for it (loses over a tenth of its progress)",
    "T=10: the task with σ = 100 pays for it (loses over a tenth of its progress)",
    "AlignedMTL turns over 10 degrees when a loss is multiplied by 100",
    "PCGrad's updates are over 10 % larger in the mean square for nothing but noise",
    "Learning both digits jointly with the sum loses to learning each alone",
    "PCGrad is distinguishable from the sum",
    "Some method is better than the sum beyond twice the standard error of paired differences",
}
"""What the quick runs do not find; their READMEs say so."""


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_run_finds_what_its_readme_says(name, tmp_path):
    found = run(name, "--quick", output=tmp_path)
    assert found["verdicts"]
    assert {sentence for sentence, holds in found["verdicts"].items() if not holds} <= NEGATIVE


@pytest.mark.slow
def test_the_same_seed_gives_identical_numbers_whatever_the_number_of_processes(tmp_path):
    first, second = (run("multi_digits", "--quick", "--steps", "8", "--jobs", j, output=tmp_path) for j in ("1", "2"))
    assert {**first, "environment": None} == {**second, "environment": None}
    other = run("multi_digits", "--quick", "--steps", "8", "--seed", "5", output=tmp_path)
    assert other["runs"] != first["runs"]


def test_options_of_every_experiment_are_described(capsys):
    with pytest.raises(SystemExit):
        command.main(measured, lambda parser: parser.add_argument("--mnist"), ["--help"])
    assert "--mnist" in capsys.readouterr().out
