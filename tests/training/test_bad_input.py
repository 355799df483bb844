"""Every kind of bad input as a user meets it: one sentence, exit code 2, no traceback, nothing half-written."""

import json
from pathlib import Path

import pytest
import torch
from tiny_run import TASKS, build_model, rows_of, write_config, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from mtl_opt import cli
from mtl_opt.training import read_yaml


@pytest.fixture
def unwritten(settings, refused):
    """Refuse, and see to it that the output folder was not even created."""

    def run(settings_, *overrides, verb="train"):
        sentence = refused(settings_, *overrides, verb=verb)
        output = Path(settings["output_dir"])
        assert not output.exists(), list(output.rglob("*"))
        return sentence

    return run


def with_file(settings, tmp_path, content, task="qa", key="file", name="bad.jsonl"):
    path = tmp_path / name
    path.write_bytes(content)
    settings["tasks"][task][key] = str(path)
    return str(path)


@pytest.mark.parametrize("key", ["file", "eval_file"])
def test_a_missing_data_file(settings, unwritten, key):
    settings["tasks"]["摘要"][key] = "没有/这个.jsonl"
    assert "`没有/这个.jsonl` does not exist" in unwritten(settings)


@pytest.mark.parametrize("key", ["file", "eval_file"])
@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b'{"instruction": "a", "output": ', "broken JSON"),
        (b'{"instruction": "a"}', "`output` is missing"),
        (b'{"instruction": "a", "output": ""}', "`output` is empty"),
        (b'{"instruction": "a", "output": "  "}', "`output` is empty"),
        (b'{"instruction": "a", "output": 3}', "must be a string"),
        (b'{"instruction": "a", "output": "b", "task_name": "x"}', "task `x`"),
        (b"[1]", "must be an object"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(settings, unwritten, tmp_path, key, line, part):
    path = with_file(settings, tmp_path, b'{"instruction": "a", "output": "b"}\n\n' + line + b"\n", key=key)
    sentence = unwritten(settings)
    assert f"`{path}`, line 3" in sentence
    assert part in sentence


def test_bytes_that_are_no_utf8(settings, unwritten, tmp_path):
    path = with_file(settings, tmp_path, '{"instruction": "愤怒的客户", "output": "b"}'.encode("gbk"))
    assert f"`{path}` is not UTF-8" in unwritten(settings)


def test_a_task_without_rows(settings, unwritten, tmp_path):
    path = with_file(settings, tmp_path, b"\n")
    assert f"`{path}` has no rows" in unwritten(settings)


def mixed_settings(settings, tmp_path, eval_tasks):
    del settings["tasks"]
    train = [{**row, "task_name": task} for task in TASKS for row in rows_of(task, 3)]
    held_out = [{**row, "task_name": task} for task in eval_tasks for row in rows_of(task.removesuffix("x"), 2)]
    settings["train_file"] = write_jsonl(tmp_path / "train.jsonl", train)
    settings["eval_file"] = write_jsonl(tmp_path / "eval.jsonl", held_out)
    return settings


def test_an_unknown_task_in_an_evaluation_row(settings, unwritten, tmp_path):
    sentence = unwritten(mixed_settings(settings, tmp_path, [*TASKS, "qax"]))
    assert "unknown task `qax`" in sentence
    assert "eval.jsonl`, line 7" in sentence


def test_a_task_without_evaluation_rows(settings, unwritten, tmp_path):
    assert "no rows of task `anger`" in unwritten(mixed_settings(settings, tmp_path, TASKS[:2]))


def test_a_row_without_task_name_in_a_mixed_file(settings, unwritten, tmp_path):
    settings = mixed_settings(settings, tmp_path, TASKS)
    write_jsonl(Path(settings["train_file"]), rows_of("qa", 2))
    assert "`task_name` is missing" in unwritten(settings)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("combiner=pcgard", "Did you mean `pcgrad`"),
        ("learning_rte=1", "Did you mean `learning_rate`"),
        ("template=alpacca", "Did you mean `alpaca`"),
        ("template=tokenizer", "chat template"),
        ("learning_rate=.nan", "`learning_rate`"),
        ("rows_per_task=0", "`rows_per_task`"),
        ("val_size=1.5", "`val_size`"),
        ("only_tasks=qu", "`only_tasks`"),
        ("lora_target=q_prj", "Did you mean `q_proj`"),
        ("model_name_or_path=/no/such/model", "`/no/such/model`"),
        ("combiner_args.alpha=1", "has no argument `alpha`"),
        ("resume_from_checkpoint=/no/checkpoint-3", "`/no/checkpoint-3`"),
        ("seed", "key=value"),
    ],
)
def test_a_setting_that_does_not_fit(settings, unwritten, override, part):
    assert part in unwritten(settings, override)


@pytest.mark.parametrize(
    ("combiner", "arguments", "part"),
    [
        ("gradnorm", "{alpah: 1}", "alpha"),
        ("gradnorm", "{alpha: much}", "combiner_args"),
        ("gradnorm", "{lr: -1}", "`lr`"),
        ("gradnorm", "{layers: [none]}", "layers"),
        ("gradnorm", "{layers: 3}", "layers"),
        ("gradnorm", "{layers: []}", "layers"),
        ("uncertainty", "{form: gaussian}", "form"),
        ("pcgrad", "{seed: x}", "seed"),
        ("pcgrad", "{seed: 99999999999999999999999}", "combiner_args"),
        ("weighted", "{task_weights: {qa: 1}}", "task_weights"),
        ("weighted", "{task_weights: [1, 2]}", "task_weights"),
        ("weighted", "{task_weights: 3}", "combiner_args"),
        ("weighted", "{task_weights: [a, b, c]}", "combiner_args"),
        ("weighted", "{task_weights: [0, 0, 0]}", "not all 0"),
        ("weighted", "{task_weights: [.nan, 1, 1]}", "finite"),
    ],
)
def test_arguments_that_a_combiner_does_not_take(settings, unwritten, combiner, arguments, part):
    assert part in unwritten(settings, f"combiner={combiner}", f"combiner_args={arguments}")


def test_arguments_are_checked_for_all_combiners_before_the_first_is_trained(settings, unwritten):
    overrides = ["combiners=[sum, gradnorm]", "seeds=0", "combiner_args={gradnorm: {alpha: -1}}"]
    assert "`alpha`" in unwritten(settings, *overrides, verb="compare")


def test_the_polynomial_schedule_refuses_a_learning_rate_below_its_end(settings, unwritten):
    assert "lr" in unwritten(settings, "lr_scheduler_type=polynomial", "learning_rate=1e-9")


def test_a_tokenizer_with_neither_pad_nor_eos(settings, unwritten, tmp_path):
    settings["model_name_or_path"] = build_model(tmp_path / "m", pad_token=None, eos_token=None)
    assert "neither a pad nor an eos token" in unwritten(settings)


def test_a_missing_pad_token_is_replaced_with_a_note(settings, tmp_path, caplog):
    settings["model_name_or_path"] = build_model(tmp_path / "m", pad_token=None)
    assert cli.main(["train", write_config(tmp_path / "c.yaml", settings)]) == 0
    assert "eos token `</s>` is used for padding" in caplog.text


@pytest.mark.parametrize("where", ["train", "eval", "pad"])
def test_a_tokenizer_with_ids_beyond_the_vocabulary(settings, unwritten, tmp_path, where):
    folder = build_model(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if where == "pad":
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    else:
        tokenizer.add_tokens(["extraordinary"])
        key = "file" if where == "train" else "eval_file"
        with_file(settings, tmp_path, b'{"instruction": "an extraordinary case", "output": "b"}\n' * 2, key=key)
    tokenizer.save_pretrained(folder)
    assert "token id 300" in unwritten({**settings, "model_name_or_path": folder})


@pytest.mark.parametrize("cutoff_len", [48, 62])
def test_rows_longer_than_the_positions_of_the_model(settings, unwritten, tmp_path, cutoff_len):
    folder = tmp_path / "m"
    build_model(folder)
    (folder / "model.safetensors").unlink()
    sizes = {"vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": cutoff_len + 2}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=1)).save_pretrained(folder)
    settings |= {"model_name_or_path": str(folder), "cutoff_len": cutoff_len}
    assert "lower `cutoff_len`" in unwritten(settings, "max_new_tokens=3")
    assert "lower `cutoff_len`" in unwritten(settings, f"cutoff_len={cutoff_len + 3}", "val_size=0")
    settings["cutoff_len"] = cutoff_len - 1
    assert cli.main(["train", write_config(tmp_path / "c.yaml", settings)]) == 0


def poisoned(settings, tmp_path):
    folder = build_model(tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    model.save_pretrained(folder)
    return {**settings, "model_name_or_path": folder}


def test_a_loss_that_is_not_finite_names_task_and_step(settings, refused, tmp_path):
    sentence = refused(poisoned(settings, tmp_path))
    assert "loss of task `qa`" in sentence
    assert "step 1" in sentence


@pytest.mark.parametrize("override", ["learning_rate=1e18", "weight_decay=1e18"])
def test_after_a_loss_that_is_not_finite_every_checkpoint_is_good(settings, refused, override):
    sentence = refused(settings, override, "save_steps=1", "max_steps=30", "max_grad_norm=0")
    assert "not finite" in sentence
    assert "step" in sentence
    output = Path(settings["output_dir"])
    assert not (output / "all_results.json").exists()
    assert not list(output.glob("*.partial"))
    for checkpoint in output.glob("checkpoint-*"):
        weights = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
        assert all(tensor.isfinite().all() for tensor in weights.values())


def test_weights_of_a_combiner_that_overflow_do_not_reach_the_model(settings, refused):
    overrides = ["combiner=uncertainty", "combiner_args.lr=200", "save_steps=1", "max_steps=30"]
    assert "step" in refused(settings, *overrides)
    for checkpoint in Path(settings["output_dir"]).glob("checkpoint-*"):
        weights = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
        assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_loss_that_is_not_finite_after_the_last_step_is_no_result(settings, refused):
    assert "not finite" in refused(
        settings, "learning_rate=1e18", "weight_decay=1e18", "finetuning_type=full", "max_steps=1"
    )
    assert not (Path(settings["output_dir"]) / "all_results.json").exists()


def test_a_comparison_in_more_than_one_process(settings, unwritten, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one process, got 2" in unwritten(settings, "combiners=[sum]", verb="compare")


@pytest.mark.parametrize("content", [None, b"- a\n", b"a: [1\n", b"\xff", b"a: 2024-13-45"])
def test_a_configuration_file_that_is_none(refused, tmp_path, content):
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    for verb in ("train", "compare"):
        assert f"`{path}`" in refused(path, verb=verb)


def test_eval_of_a_folder_without_a_finished_run(refused, tmp_path):
    assert "holds no finished run" in refused(tmp_path, verb="eval")
    assert "holds no finished run" in refused(tmp_path / "absent", verb="eval")


def test_eval_of_a_run_whose_adapter_is_gone(settings, refused, tmp_path, capsys):
    assert cli.main(["train", write_config(tmp_path / "c.yaml", settings)]) == 0
    capsys.readouterr()
    output = Path(settings["output_dir"])
    (output / "adapter_model.safetensors").unlink()
    assert "No adapter could be loaded" in refused(output, verb="eval")
    (output / "all_results.json").write_text("{", encoding="utf-8")
    assert "all_results.json" in refused(output, verb="eval")
    assert read_yaml(output / "config.yaml", [])["seed"] == 42


def test_a_results_file_that_is_no_comparison(settings, refused):
    output = Path(settings["output_dir"])
    output.mkdir()
    (output / "results.jsonl").write_text(json.dumps([1]) + "\n" + json.dumps({"run": "x"}) + "\n", encoding="utf-8")
    assert "line 1 is no result of a run" in refused(settings, verb="compare")
