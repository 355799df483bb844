"""`mtl-opt generate`: a run and what was exported from it answer alike, with the template of training."""

import json
import shutil

import pytest
from tiny_run import config_of, write_jsonl

from mtl_opt import cli
from mtl_opt.deploy.export_folders import ExportOptions, export
from mtl_opt.training import train
from mtl_opt.training.run.measurement import evaluate_folder

ROWS = [
    {"instruction": "How much is this?", "input": "3 and 1", "output": "4", "task_name": "qa"},
    {"instruction": "请概括下面的投诉。", "task_name": "摘要"},
    {"messages": [{"role": "user", "content": "Angry?"}], "task_name": "anger"},
    {"prompt": "How much?", "task_name": "qa"},
    {"text": "扣款", "task_name": "摘要"},
    {"conversations": [{"from": "human", "value": "How much?"}], "task_name": "qa"},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory, model_folder, task_files):
    output = tmp_path_factory.mktemp("answers") / "run"
    settings = {
        "model_name_or_path": model_folder, "tasks": task_files, "output_dir": str(output), "lora_rank": 2,
        "sharing": "private_layers", "max_steps": 6, "cutoff_len": 48, "logging_steps": 6, "save_steps": None,
        "learning_rate": 0.03, "rows_per_task": 2, "max_new_tokens": 4, "task_prefix": "### {task}",
    }  # fmt: skip
    train(config_of(settings))
    return output


@pytest.fixture
def generate(capsys):
    def call(*arguments, code=0):
        capsys.readouterr()
        assert cli.main(["generate", *map(str, arguments)]) == code
        out, err = capsys.readouterr()
        if code == 0:
            return out
        return err.splitlines()[-1].removeprefix("mtl-opt: error: ")

    return call


def test_rows_of_mixed_tasks_are_answered_as_json_lines(run, generate, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    lines = [json.loads(line) for line in generate(run, "--file", path).splitlines()]
    assert [line["task"] for line in lines] == [row["task_name"] for row in ROWS]
    assert [line.get("label") for line in lines] == ["4", None, None, None, None, None]
    assert lines[4]["prompt"] == "扣款"
    one = write_jsonl(tmp_path / "one.jsonl", [{k: v for k, v in ROWS[1].items() if k != "task_name"}])
    alone = json.loads(generate(run, "--task", "摘要", "--file", one))
    assert alone["predict"] == lines[1]["predict"]
    exported = export(run, ExportOptions(str(tmp_path / "merged")))
    assert set(exported) == {"qa", "摘要", "anger"}
    again = [json.loads(line) for line in generate(tmp_path / "merged", "--file", path).splitlines()]
    assert sorted(again, key=lambda line: line["index"]) == lines


def test_answers_are_those_that_evaluation_measured(run, generate, task_files):
    measured = evaluate_folder(run)
    for task, files in task_files.items():
        lines = [json.loads(line) for line in generate(run, "--task", task, "--file", files["eval_file"]).splitlines()]
        right = [line["predict"].strip() == line["label"] for line in lines]
        assert sum(right) / len(right) >= measured[f"eval_{task}_exact_match"] - 1e-9


def test_a_prompt_is_streamed_to_the_same_answer(run, generate, tmp_path):
    text = generate(run, "--task", "qa", "--prompt", "How much?", "--max-new-tokens", 6)
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "How much?"}])
    line = json.loads(generate(run, "--task", "qa", "--file", path, "--max-new-tokens", 6))
    assert text == line["predict"] + "\n"
    drawn = ["--temperature", 2, "--seed", 3]
    assert generate(run, "--task", "qa", "--prompt", "x", *drawn) == generate(
        run, "--task", "qa", "--prompt", "x", *drawn
    )


BAD = {
    "an unknown task": (["--task", "qaa", "--prompt", "x"], "`: `qaa`. Did you mean `qa`? Allowed: anger, qa, 摘要."),
    "no task": (["--prompt", "x"], "Whose prompts are these? Give `--task`, one of qa, 摘要, anger."),
    "nothing to answer": (["--task", "qa"], "Give one of `--prompt TEXT` and `--file rows.jsonl`."),
    "an empty prompt": (["--task", "qa", "--prompt", " "], "`--prompt` is empty; there is nothing to answer."),
    "no tokens": (["--task", "qa", "--prompt", "x", "--max-new-tokens", "0"], "must be at least 1, got 0."),
    "a cold model": (["--task", "qa", "--prompt", "x", "--temperature=-1"], "`--temperature` must be at least 0"),
    "no file": (["--task", "qa", "--file", "nowhere.jsonl"], "Data file `nowhere.jsonl` does not exist."),
}


@pytest.mark.parametrize("case", BAD)
def test_what_generate_refuses_is_one_sentence(case, run, generate):
    arguments, sentence = BAD[case]
    assert sentence in generate(run, *arguments, code=2)


def test_an_export_made_for_other_tasks_is_refused(run, generate, tmp_path):
    export(run, ExportOptions(str(tmp_path / "out"), tasks=("qa", "摘要"), adapter=True))
    assert generate(tmp_path / "out", "--task", "摘要", "--prompt", "x")
    sentence = f"Unknown task of the export `{tmp_path}/out`: `anger`. Allowed: qa, 摘要."
    assert generate(tmp_path / "out", "--task", "anger", "--prompt", "x", code=2) == sentence
    assert "There is no run or configuration" in generate(tmp_path / "no", "--task", "qa", "--prompt", "x", code=2)


def test_exports_with_private_output_adapters_answer_as_the_run(generate, tmp_path, task_files, model_folder):
    rows = [{"text": f"number {i}", "label": ["no", "yes"][i % 2]} for i in range(6)]
    label = {"file": write_jsonl(tmp_path / "label.jsonl", rows)}
    tasks = {"qa": task_files["qa"], "摘要": task_files["摘要"], "label": label}
    heads = {"摘要": {"type": "lm", "rank": 2}, "label": {"type": "classification"}}
    settings = {
        "model_name_or_path": model_folder, "tasks": tasks, "output_dir": str(tmp_path / "run"), "lora_rank": 2,
        "max_steps": 12, "cutoff_len": 48, "save_steps": None, "learning_rate": 0.1, "rows_per_task": 2,
        "max_new_tokens": 4, "heads": heads,
    }  # fmt: skip
    train(config_of(settings))
    folders = export(tmp_path / "run", ExportOptions(str(tmp_path / "out")))
    path = write_jsonl(tmp_path / "rows.jsonl", [{**row, "task_name": "摘要"} for row in ROWS[1:4]])
    for task in ("qa", "摘要"):
        arguments = ["--task", task, "--file", path, "--max-new-tokens", 8]
        assert generate(tmp_path / "out", *arguments) == generate(tmp_path / "run", *arguments)
    assert (folders["label"] / "heads.json").exists()
    asked = ["--prompt", "x", "--task"]
    assert "classification, which writes no text" in generate(tmp_path / "out", *asked, "label", code=2)
    about = {"tasks": {"摘要": {"type": "lm", "rank": 2}}}  # as an earlier version left it
    (folders["摘要"] / "heads.json").write_text(json.dumps(about), encoding="utf-8")
    assert "The head of task `摘要` lies beside its model" in generate(tmp_path / "out", *asked, "摘要", code=2)


@pytest.mark.slow  # a name that is no folder is looked for on the hub, again and again
def test_settings_win_over_those_of_an_export(run, generate, tmp_path, model_folder):
    export(run, ExportOptions(str(tmp_path / "out"), tasks=("qa",), adapter=True))
    ask = ["--task", "qa", "--prompt", "x"]
    assert "nonsense" in generate(tmp_path / "out", "nonsense=1", *ask, code=2)
    assert "nowhere" in generate(tmp_path / "out", "model_name_or_path=nowhere", *ask, code=2)
    shutil.copytree(model_folder, tmp_path / "moved")
    moved = generate(tmp_path / "out", f"model_name_or_path={tmp_path}/moved", *ask)
    assert moved == generate(tmp_path / "out", *ask)
