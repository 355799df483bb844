import shlex

import yaml
from references.comparison_folder import write_comparison

from mtl_opt.report.page.answers import all_answers
from mtl_opt.report.page.commands import split_configs
from mtl_opt.report.page.contents import contents
from mtl_opt.report.read.folder import read_folder


def test_commands_survive_a_shell_and_name_files_that_exist(tmp_path):
    folder = tmp_path / "the 比较; rm -rf x"
    write_comparison(folder, ["sum"], [0], steps=20)
    found = contents(read_folder(folder))["reproduce"]
    words = [shlex.split(command) for command in found["commands"]]
    assert words[0][:3] == ["mtl-opt", "train", str(folder / "sum-seed0" / "config.yaml")]
    assert words[-1] == ["mtl-opt", "report", str(folder)]
    assert found["data_hash"] == "3f2a9c11d0"


def test_shared_settings_and_differences_are_told_apart():
    configs = {
        "a": {"seed": 0, "combiner": "sum", "model": "模型"},
        "b": {"seed": 1, "combiner": "mgda", "model": "模型"},
    }
    shared, differences = split_configs(configs)
    assert shared == {"model": "模型"}
    assert differences == {"combiner": {"a": "sum", "b": "mgda"}}


def test_the_configuration_of_a_run_is_given_whole(tmp_path):
    lines = write_comparison(tmp_path, ["sum"], [0], steps=20)
    found = contents(read_folder(tmp_path / "sum-seed0"))["reproduce"]
    assert yaml.safe_load(found["config"]) == lines[0]["config"]


def test_answers_of_two_methods_stand_beside_the_same_prompts(tmp_path):
    lines = write_comparison(tmp_path, ["sum", "pcgrad"], [0], ["情绪", "qa"], steps=20, baselines=False)
    runs = [(line, tmp_path / line["run"]) for line in lines]
    found = all_answers(runs, ["情绪", "qa"])
    assert list(found["by_method"]) == ["sum", "pcgrad"]
    assert len(found["rows"]["情绪"]) == len(found["by_method"]["pcgrad"]["情绪"]) == 8
    path = tmp_path / "pcgrad-seed0" / "generated_predictions.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Question 0?", "Another?"), encoding="utf-8")
    assert list(all_answers(runs, ["情绪", "qa"])["by_method"]) == ["sum"]
