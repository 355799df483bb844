"""Settings and data folders of LLaMA-Factory, read and trained on as a user would."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtl_opt import cli
from mtl_opt.training import read_yaml, train_config
from mtl_opt.training.setup.data import entries_of, prepare
from tests.tiny_run import write_config, write_jsonl

CASES = Path(__file__).parents[3] / "shared" / "cases" / "data" / "llamafactory_keys"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")


@pytest.fixture
def llamafactory(settings: dict[str, Any]) -> dict[str, Any]:
    del settings["tasks"]
    return {
        **settings, "stage": "sft", "do_train": True, "finetuning_type": "lora", "dataset_dir": str(CASES),
        "dataset": "qa_train,sum_train", "overwrite_output_dir": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "eval_dataset", "tasks"),
    [
        ("qa_train,sum_train", "qa_test,sum_test", ["qa", "sum"]),  # names without their ending
        ("qa_train,sum_train", "sum_test,qa_test", ["sum", "qa"]),
        ("qa,sum", "qa_test,sum_test", ["qa", "sum"]),
        ("qa,sum", "qa_test2,sum_test", ["qa", "sum"]),  # `task` of the entry
        ("qa_train", "sum_test", ["qa"]),  # in order
        ("qa,sum_train", "qa", ["qa"]),
        ("badfield,emptycol", "emptycol", ["emptycol"]),  # columns of pictures or marks that are null or empty
    ],
)
def test_held_out_data_sets_find_their_tasks(
    llamafactory: dict[str, Any], dataset: str, eval_dataset: str, tasks: list[str]
) -> None:
    config = train_config({**llamafactory, "dataset": dataset, "eval_dataset": eval_dataset})
    _, held_out = entries_of(config)
    assert [source.task for source in held_out] == tasks


def test_held_out_rows_of_data_sets_with_names_of_their_own_are_measured(
    llamafactory: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    prepared = prepare(train_config({**llamafactory, "eval_dataset": "qa_test,sum_test"}))
    assert {task: len(rows) for task, rows in prepared.eval_rows.items()} == {"qa": 6, "sum": 6}
    assert prepared.sizes == {"qa": 60, "sum": 30}
    assert "Held-out rows of `qa_test` are of task `qa`." in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "read"),
    [
        (
            ["--interleave_probs", "0.6,0.2", "--mix_strategy", "interleave_under"],
            {"mixing": "ratios", "ratios": {"qa": 0.6, "sum": 0.2}, "exhaustion": "stop_first"},
        ),
        (["--streaming", "--mix_strategy", "concat"], {"streaming": True, "mixing": "equal", "exhaustion": "repeat"}),
        (["--streaming", "--mix_strategy=interleave_over", "--buffer_size", "16"], {"buffer_size": 16}),
        (["--packing", "true", "--neat_packing", "false"], {"packing": True}),
        (["--neat_packing", "true", "--eval_dataset=qa_test,sum_test"], {"packing": True}),
        (["--template", "alpaca", "--task_prefix", "### Task: {task}"], {"task_prefix": "### Task: {task}"}),
    ],
    ids=str,
)
def test_a_folder_of_llama_factory_trains_with_its_keys_on_the_command_line(
    llamafactory: dict[str, Any], tmp_path: Path, words: list[str], read: dict[str, Any]
) -> None:
    path = write_config(tmp_path / "config.yaml", llamafactory)
    assert cli.main(["train", path, *words]) == 0
    config = read_yaml(tmp_path / "run" / "config.yaml", [])
    assert {key: config[key] for key in read} == read
    lines = [json.loads(line) for line in (tmp_path / "run" / "trainer_log.jsonl").read_text("utf-8").splitlines()]
    assert {"loss_qa", "loss_sum"} <= set().union(*lines)


def test_a_run_may_be_given_on_the_command_line_alone(
    llamafactory: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for key, value in llamafactory.items() for word in (f"--{key}", json.dumps(value))]
    assert cli.main(["data", "stats", *words, "--val_size", "5", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["tasks"]) == {"qa", "sum"}


def test_files_with_task_names_are_read_below_the_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    del settings["tasks"]
    for name, tasks in (("a.jsonl", ("问答", "sum")), ("b.jsonl", ("sum",))):
        rows = [{"instruction": f"{i}", "output": "a", "task_name": task} for task in tasks for i in range(10)]
        write_jsonl(tmp_path / name, rows)
    prepared = prepare(
        train_config({**settings, "data_files": "a.jsonl,b.jsonl", "dataset_dir": str(tmp_path), "val_size": 2})
    )
    assert prepared.sizes == {"问答": 8, "sum": 16}  # two of each task in each file


def test_documents_of_stage_pt_are_read_in_blocks(llamafactory: dict[str, Any], tmp_path: Path) -> None:
    text = (CASES.parent / "long_text" / "long.txt").read_text(encoding="utf-8").strip()
    (tmp_path / "dataset_info.json").write_text(json.dumps({"long": {"file_name": "long.txt"}}))
    (tmp_path / "long.txt").write_text(text + "\n", encoding="utf-8")
    own = {"stage": "pt", "cutoff_len": 64, "dataset": "long", "dataset_dir": str(tmp_path)}
    prepared = prepare(train_config({**llamafactory, **own}))
    rows = prepared.train_rows["long"]
    assert "".join(rows[i].output for i in range(len(rows))) == text
    assert prepared.train["long"].num_shortened == 0
