"""Runs of the architectures that people fine-tune: trained, exported and asked, or refused with a reason."""

import logging

import pytest
from tiny_architectures import ARCHITECTURES, ENCODER_DECODERS, save_architecture
from tiny_run import config_of, write_jsonl
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from mtl_opt import generate
from mtl_opt.deploy.answer import open_answering, prompt_row
from mtl_opt.deploy.export_folders import export
from mtl_opt.deploy.trained_run import open_trained
from mtl_opt.errors import InputError
from mtl_opt.training import train
from mtl_opt.training.preview.plan import plan_run


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Save each architecture once, when it is first asked for."""
    folder, saved = tmp_path_factory.mktemp("architectures"), {}

    def save(name: str) -> str:
        saved[name] = saved.get(name) or save_architecture(name, folder / name)
        return saved[name]

    return save


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_auto_takes_per_task_where_experts_have_adapters_and_the_plan_says_so(name, settings, folder_of, caplog):
    caplog.set_level(logging.INFO)
    config = config_of(settings, model_name_or_path=folder_of(name), max_steps=1)
    planned = plan_run(config)
    caplog.clear()
    train(config)
    (line,) = [record.getMessage() for record in caplog.records if "Gradient engine" in record.getMessage()]
    assert line == f"Gradient engine {planned.engine}: {planned.engine_reason}."
    assert planned.engine == "per_task"
    assert "`base_model.model.model.layers." in planned.engine_reason


def test_experts_have_an_adapter_of_their_own_rank_and_it_is_said_in_our_words(settings, folder_of, caplog):
    caplog.set_level(logging.INFO)
    train(config_of(settings, model_name_or_path=folder_of("mixtral"), max_steps=1))
    assert "The adapter of `gate_up_proj`, several projections in one, has rank 4; others have 2." in caplog.text


def test_mamba_trains_with_the_usual_targets_and_the_log_names_what_is_left_out(settings, folder_of, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings["model_name_or_path"] = folder_of("mamba")
    config = config_of(settings)
    assert plan_run(config).shared == train(config)["params_shared"]
    assert "peft puts no adapter on some layers called `out_proj` of this model" in caplog.text
    export(tmp_path / "run")
    logged = caplog.text.count("peft puts no adapter")
    train(config_of(settings, sharing="private_layers", output_dir=str(tmp_path / "private")))
    export(tmp_path / "private")
    assert caplog.text.count("peft puts no adapter") == logged


def test_a_target_that_can_carry_no_adapter_is_refused(settings, folder_of, refused):
    sentence = refused({**settings, "model_name_or_path": folder_of("mamba"), "lora_target": "in_proj,out_proj"})
    assert "`lora_target` names `out_proj`, which can carry no adapter in `MambaForCausalLM`" in sentence


def asked(where, prompts):
    """Answer prompts of the task `qa` by a run or an export."""
    rows = [prompt_row(prompt) for prompt in prompts]
    return [text for _, text in open_answering(where).answer(rows, ["qa"] * len(rows), max_new_tokens=4)]


@pytest.mark.slow
@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_trained_measured_exported_and_asked(name, finetuning_type, settings, folder_of, tmp_path):
    settings |= {"model_name_or_path": folder_of(name), "finetuning_type": finetuning_type, "max_steps": 6}
    config = config_of(settings, combiner="pcgrad", save_steps=3)
    planned, results = plan_run(config), train(config)
    assert planned.engine == results["gradient_engine"]
    assert planned.shared == results["params_shared"]
    assert results["eval_qa_loss"] < results["before_eval_qa_loss"]
    again = config_of(
        settings, combiner="pcgrad", save_steps=3, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"),
    )  # fmt: skip
    assert train(again)["eval_qa_loss"] == results["eval_qa_loss"]
    (folder,) = set(export(tmp_path / "run").values())
    prompts = ["How much is this?", "请概括下面的投诉。"]
    answers = asked(tmp_path / "run", prompts)
    assert asked(folder, prompts) == answers
    auto = AutoModelForSeq2SeqLM if name in ENCODER_DECODERS else AutoModelForCausalLM
    plain, tokenizer = auto.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert generate(plain, tokenizer, [tokens_of(tmp_path / "run", prompts[0])], 0, max_new_tokens=4)[0] == answers[0]


def tokens_of(run, prompt):
    """Tokenise a prompt of the task `qa` as the run does."""
    trained = open_trained(run)
    return trained.encoder("qa", trained.tokenizer()).prompt(prompt_row(prompt))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoder_and_decoder_learn_their_answers_by_heart(name, settings, folder_of):
    settings["tasks"] = {task: files for task, files in settings["tasks"].items() if task == "anger"}
    config = config_of(
        settings, model_name_or_path=folder_of(name), finetuning_type="full", max_steps=250, learning_rate=0.003,
        rows_per_task=3, max_new_tokens=8, cutoff_len=64,
    )  # fmt: skip
    results = train(config)
    assert results["eval_anger_exact_match"] == 1.0
    assert results["eval_anger_loss"] < 0.1


def test_dialogues_and_texts_without_a_prompt_are_refused_by_an_encoder_and_decoder(settings, folder_of, tmp_path):
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    file = write_jsonl(tmp_path / "chat.jsonl", [{"messages": turns}] * 4)
    own = {**settings, "model_name_or_path": folder_of("t5"), "tasks": {"客服": {"file": file}}}
    with pytest.raises(InputError, match=r"Task `客服`: row 1 has 2 answers, of which a decoder writes only one"):
        train(config_of(own))
    train(config_of(own, mask_history=True, max_steps=1))
    with pytest.raises(InputError, match="`packing: true`: T5ForConditionalGeneration has an encoder"):
        train(config_of({**own, "output_dir": str(tmp_path / "packed")}, mask_history=True, packing=True))
