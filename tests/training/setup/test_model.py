"""Runs with every way of sharing: they learn, count, resume bit by bit and are measured again from their files."""

import json
from pathlib import Path

import pytest
import torch
from launch import torchrun
from models.sharing_cases import TASKS as CASE_TASKS
from models.sharing_cases import make_batch, make_model
from peft import PeftModel
from safetensors.torch import load_file
from tiny_run import config_of, log_lines, mostly_slow, write_config, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer, DebertaV2Config, DebertaV2Model, OPTConfig, OPTForCausalLM

from mtl_opt import PCGrad, TaskGradients
from mtl_opt.batch import task_rows
from mtl_opt.cli import main
from mtl_opt.deploy.export_folders import ExportOptions, export
from mtl_opt.deploy.trained_run import open_trained
from mtl_opt.errors import InputError
from mtl_opt.models import SHARING, private_parameters
from mtl_opt.training import train
from mtl_opt.training.preview.plan import plan_run
from mtl_opt.training.run.measurement import evaluate_folder
from mtl_opt.training.run.step import Parts, training_step

NAMES = [name for name in SHARING if name != "hard"]
MOSTLY_SLOW = mostly_slow(NAMES, ("private_layers", "soft", "sparse_experts", "rotograd"))
QUICK = {"max_new_tokens": 1, "rows_per_task": 1}
SHORT = {**QUICK, "max_steps": 2}


def weights(folder) -> bytes:
    return (Path(folder) / "sharing.safetensors").read_bytes()


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_a_run_learns_counts_resumes_and_is_measured_again(name, settings, tmp_path):
    config = config_of(settings, **QUICK, sharing=name, save_steps=2, gradient_checkpointing=True)
    results = train(config)
    about = json.loads((tmp_path / "run" / "sharing.json").read_text(encoding="utf-8"))
    assert about["sharing"] == name
    assert about["tasks"] == ["qa", "摘要", "anger"]
    assert results["params_shared"] + sum(results[f"params_{task}"] for task in about["tasks"]) > 0
    again = evaluate_folder(tmp_path / "run")
    assert again == {key: results[key] for key in again}
    resumed = config_of(
        settings, **QUICK, sharing=name, save_steps=2, gradient_checkpointing=True, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"),
    )  # fmt: skip
    train(resumed)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    assert weights(tmp_path / "run") != weights(tmp_path / "run" / "checkpoint-2")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_a_run_on_a_4_bit_base_lowers_the_losses(name, settings):
    results = train(config_of(settings, sharing=name, quantization_bit=4, max_steps=12, rows_per_task=2, bf16=True))
    for task in ("qa", "摘要"):
        assert results[f"eval_{task}_loss"] < results[f"before_eval_{task}_loss"]


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_a_plan_counts_what_a_run_trains(name, settings):
    config = config_of(settings, sharing=name)
    found = plan_run(config)
    results = train(config_of(settings, **QUICK, sharing=name, max_steps=1))
    assert found.shared == results["params_shared"]
    assert found.private == sum(results[f"params_{task}"] for task in ("qa", "摘要", "anger"))


def test_private_parameters_take_the_weight_decay_of_their_task(settings, tmp_path):
    def final(decay):
        tasks = {task: dict(files) for task, files in settings["tasks"].items()}
        tasks["摘要"]["weight_decay"] = decay
        folder = tmp_path / f"decay{decay}"
        train(config_of(settings, **QUICK, sharing="private_layers", tasks=tasks, output_dir=str(folder)))
        return load_file(folder / "sharing.safetensors")

    plain, decayed = final(0.0), final(50.0)
    for name, value in plain.items():
        own = ".task_A.1" in name or ".task_B.1" in name
        if own and ".task_A" in name:
            assert float(decayed[name].norm()) < 0.9 * float(value.norm())
        elif ".task_A.0" in name:
            assert float(decayed[name].norm()) > 0.9 * float(value.norm())


def test_weights_of_other_tasks_are_refused(settings, tmp_path):
    train(config_of(settings, **QUICK, sharing="private_layers", max_steps=2, save_steps=1))
    folder = tmp_path / "run"
    about = json.loads((folder / "sharing.json").read_text(encoding="utf-8"))
    (folder / "sharing.json").write_text(json.dumps(about | {"tasks": ["a", "b"]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"was saved for tasks \['a', 'b'\]"):
        evaluate_folder(folder)


@pytest.mark.parametrize("key", [{"use_dora": True, "gradient_engine": "per_task"}, {"finetuning_type": "full"}])
def test_what_does_not_go_with_private_adapters_is_refused(key, settings):
    with pytest.raises(InputError, match="`sharing: private_layers` goes with"):
        config_of(settings, sharing="private_layers", **key)


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_packed_rows_reach_their_own_parameters(name, settings):
    results = train(config_of(settings, **QUICK, sharing=name, packing=True, max_steps=2))
    assert results["gradient_engine"] == "one_pass"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("private_layers", {}),
        ("disentangled", {"adversary": 0.0}),  # the adversary takes its mean over the tokens of each process
        ("rotograd", {"burn_in": 0, "scale": True}),
        ("soft", {}),
    ],
)
@pytest.mark.slow
def test_two_processes_with_private_parameters_learn_what_one_does(name, arguments, settings, tmp_path):
    # Not AdamW: its first step takes the sign of a gradient that is nothing but rounding.
    plain = {"optim": "sgd", "learning_rate": 0.1}
    changes = {**QUICK, **plain, "sharing": name, "sharing_args": arguments, "combiner": "pcgrad"}
    train(config_of(settings, **{**changes, "rows_per_task": 2}))
    path = write_config(
        tmp_path / "two.yaml", {**settings, **changes, "rows_per_task": 1, "output_dir": str(tmp_path / "two")}
    )
    done = torchrun(2, "-m", "mtl_opt.cli", "train", path)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / folder / "sharing.safetensors") for folder in ("run", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_task_does_not_move_at_all(name):
    model = make_model(name, **({"burn_in": 0} if name == "rotograd" else {})).train()
    grads = TaskGradients(model, CASE_TASKS, "one_pass", private=private_parameters(model))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    parts = Parts(model, grads, PCGrad(), optimizer, scheduler, 1.0, None, 4)
    for step in (1, 2):  # momentum and every penalty are at work
        training_step(parts, [make_batch()], step)
    own = private_parameters(model)
    before = {task: [p.detach().clone() for p in group] for task, group in own.items()}
    training_step(parts, [make_batch((0, 0, 2))], 3)
    for task, group in own.items():
        same = [torch.equal(a, b) for a, b in zip(group, before[task], strict=True)]
        assert all(same) if task == "摘要" else not all(same), task


def test_nothing_to_combine_is_said_once_and_no_cosine_is_written(settings, caplog):
    with caplog.at_level("INFO"):
        results = train(config_of(settings, **QUICK, sharing="soft", sharing_args={"strength": 0.1}))
    assert [record.getMessage() for record in caplog.records].count(
        "Nothing is shared, so there is nothing to combine: each task takes its own gradient."
    ) == 1
    assert results["params_shared"] == 0
    assert results["conflict_rate"] is None
    for line in log_lines(Path(settings["output_dir"])):
        found = [line[key] for key in line if key.startswith(("grad_cos", "conflict_rate"))]
        assert all(value is None for value in found), line


def test_the_penalty_of_a_task_pulls_that_task(settings, tmp_path):
    def trained(**penalties):
        tasks = {task: {**files, **({"penalty": penalties[task]} if task in penalties else {})}
                 for task, files in settings["tasks"].items()}  # fmt: skip
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        arguments = {"sharing": "soft", "sharing_args": {"strength": 0.0}, "optim": "sgd", "learning_rate": 0.05}
        train(config_of(settings, **QUICK | arguments, tasks=tasks, output_dir=str(folder)))
        return load_file(folder / "sharing.safetensors")

    plain, pulled = trained(), trained(摘要=50.0)
    for name, value in plain.items():
        assert torch.equal(value, pulled[name]) != (".task_A.1" in name or ".task_B.1" in name), name


def test_rotations_take_their_own_learning_rate_and_no_weight_decay(settings):
    from mtl_opt.training.run.assembly import build_run
    from mtl_opt.training.setup.data import prepare

    tasks = {task: dict(files) for task, files in settings["tasks"].items()}
    tasks["摘要"]["weight_decay"] = 0.3
    arguments = {"learning_rate_factor": 0.5}
    config = config_of(settings, sharing="rotograd", sharing_args=arguments, tasks=tasks, weight_decay=0.1)
    run = build_run(config, prepare(config))
    groups = {id(p): group for group in run.parts.optimizer.param_groups for p in group["params"]}
    angles = run.parts.model.sharing.rotations.angles
    assert [groups[id(p)]["initial_lr"] for p in angles] == [0.005] * 3
    assert [groups[id(p)]["weight_decay"] for p in angles] == [0.0, 0.3, 0.0]
    assert run.parts.optimizer.param_groups[0]["initial_lr"] == 0.01
    assert run.parts.optimizer.param_groups[0]["weight_decay"] == 0.1


def test_rotations_with_norms_go_on_bit_by_bit(settings, tmp_path):
    arguments = {"burn_in": 1, "scale": True, "learning_rate_factor": 1.0}
    one = config_of(settings, **QUICK, sharing="rotograd", sharing_args=arguments, save_steps=2)
    train(one)
    again = {"output_dir": str(tmp_path / "again"), "resume_from_checkpoint": str(tmp_path / "run" / "checkpoint-2")}
    train(config_of(settings, **QUICK, sharing="rotograd", sharing_args=arguments, save_steps=2, **again))
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    state = load_file(tmp_path / "run" / "sharing.safetensors")
    assert bool((state["model.task_rotation.first_norms"] > 0).all())
    assert bool((state["model.task_rotation.factors"] != 1).any())
    assert all(bool(state[f"model.task_rotation.angles.{task}"].any()) for task in range(3))


def test_the_loss_of_a_run_is_the_mean_of_its_main_tasks(settings):
    tasks = {task: dict(files) for task, files in settings["tasks"].items()}
    tasks["anger"]["role"] = "auxiliary"
    results = train(config_of(settings, **QUICK, sharing="soft", tasks=tasks, max_steps=2))
    lines = [line for line in log_lines(Path(settings["output_dir"])) if "loss_qa" in line]
    assert len(lines) == 2
    means = [(line["loss_qa"] + line["loss_摘要"]) / 2 for line in lines]
    assert results["train_loss"] == pytest.approx(sum(means) / 2)
    assert "eval_anger_loss" in results


@pytest.fixture(scope="module")
def opt(tmp_path_factory, model_folder):
    """Save an untrained OPT of two layers with the tokenizer of the tiny Llama."""
    folder = tmp_path_factory.mktemp("opt")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32,
        word_embed_proj_dim=32, max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    OPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", mostly_slow(SHARING, ("hard", "soft", "rotograd")))
def test_every_name_works_without_arguments_on_opt(name, settings, opt, tmp_path):
    config = config_of(settings, **QUICK, sharing=name, model_name_or_path=opt, gradient_engine="one_pass")
    results = train(config)
    assert results["gradient_engine"] == "one_pass"
    again = evaluate_folder(tmp_path / "run")
    assert again == {key: results[key] for key in again}


def test_an_architecture_whose_layers_do_not_get_the_rows_is_refused_before_anything_is_written(
    settings, refused, tmp_path, model_folder
):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        relative_attention=True, pos_att_type=["c2p", "p2c"],
    )  # fmt: skip
    DebertaV2Model(config).save_pretrained(tmp_path / "deberta")
    tokenizer.save_pretrained(tmp_path / "deberta")
    rows = [{"text": f"第{i}次扣款", "label": ["坏", "好"][i % 2]} for i in range(6)]
    files = {name: {"file": write_jsonl(tmp_path / f"{name}.jsonl", rows)} for name in ("情感", "anger")}
    heads = {name: {"type": "classification"} for name in files}
    own = {**settings, "model_name_or_path": str(tmp_path / "deberta"), "tasks": files, "heads": heads}
    sentence = refused({**own, "sharing": "soft"})
    assert "`sharing: soft`: `DebertaV2Model` calls `encoder.layer.0.attention.self.pos_key_proj` with" in sentence
    assert "name other layers in `lora_target`" in sentence
    sentence = refused({**own, "sharing": "hard", "gradient_engine": "one_pass"})
    assert sentence.startswith("`gradient_engine: one_pass`: Layer `backbone.base_model.model.encoder.layer.0.")
    assert "engine `one_pass` cannot tell whose rows these are; use engine `per_task`" in sentence
    assert not (tmp_path / "run").exists()
    assert train(config_of({**own, "output_dir": str(tmp_path / "auto")}, **SHORT))["gradient_engine"] == "per_task"
    train(config_of(own, **QUICK, sharing="soft", lora_target=["value_proj", "dense"]))


HEADS = {"sharing": "task_attention", "sharing_args": {"heads": 2}}


def test_private_heads_from_a_configuration_resume_bit_by_bit_and_export(settings, tmp_path):
    changes = {**QUICK, **HEADS, "save_steps": 2, "lora_dropout": 0.1}
    whole = train(config_of(settings, **changes))
    assert all(whole[f"params_{task}"] == 4 * 32 * 16 for task in ("qa", "摘要", "anger"))  # half of 32 features
    again = config_of(
        settings, **changes, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"),
    )  # fmt: skip
    train(again)
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    tokens = torch.arange(5, 12)[None]
    for options in (ExportOptions(), ExportOptions(str(tmp_path / "peft"), adapter=True)):
        for index, (task, folder) in enumerate(export(tmp_path / "run", options).items()):
            trained = open_trained(tmp_path / "run")
            with torch.no_grad(), task_rows(torch.tensor([index])):
                wanted = trained.model()(input_ids=tokens).logits
            base = AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"] if options.adapter else folder)
            plain = PeftModel.from_pretrained(base, str(folder)) if options.adapter else base
            with torch.no_grad():
                torch.testing.assert_close(plain.eval()(input_ids=tokens).logits, wanted, rtol=1e-4, atol=1e-5)
            assert task == trained.tasks[index]


def test_numbers_of_heads_that_cannot_be_are_refused_before_anything_is_written(settings, refused, tmp_path):
    sentence = refused({**settings, **HEADS, "sharing_args": {"heads": 4}})
    assert sentence.startswith("`sharing: task_attention`: `heads` must be one of 1, 2, 3, got 4: the model has 4")
    assert "`heads` must be a whole number" in refused({**settings, **HEADS, "sharing_args": {"heads": "two"}})
    assert not (tmp_path / "run").exists()


def with_groups(settings):
    """Put two tasks, one with a Chinese name, into one group."""
    tasks = {task: dict(files) for task, files in settings["tasks"].items()}
    tasks["qa"]["group"] = tasks["摘要"]["group"] = "客服"
    return {**settings, "tasks": tasks}


def test_a_run_shares_by_the_groups_of_its_tasks(settings, tmp_path):
    rules = {"layers.1": "group", "layers.1.mlp.up_proj": "private"}
    results = train(config_of(with_groups(settings), **SHORT, sharing="selective", sharing_args={"map": rules}))
    names = load_file(tmp_path / "run" / "sharing.safetensors")
    assert any("layers.1.self_attn.q_proj.adapter.groups.0.lora_A" in name for name in names)
    assert any("layers.1.self_attn.q_proj.adapter.groups.1.task_A" in name for name in names)  # alone: private
    assert results["params_anger"] > results["params_qa"] == results["params_摘要"] > 0


def test_experts_take_their_arguments_from_the_configuration(settings, tmp_path):
    wanted = {"gate": "token", "private_experts": 1, "num_experts": 2}
    train(config_of(settings, **SHORT, sharing="experts", sharing_args=wanted))
    about = json.loads((tmp_path / "run" / "sharing.json").read_text(encoding="utf-8"))
    assert about["sharing_args"] == wanted


@pytest.mark.parametrize(
    ("sharing", "arguments", "sentence"),
    [
        ("selective", {"map": {"layers.1.q_prj": "private"}}, "the pattern `layers.1.q_prj` matches no layer"),
        ("selective", {"map": {"*": "组"}, "groups": {"组": [["qa"]]}}, "`groups.组` must hold every task"),
        ("sparse_experts", {"top_k": 9}, "`top_k` must be at most `num_experts`"),
        ("hydra", {"experts": 3}, "`hydra` has no argument `experts`. Allowed: num_b"),
    ],
)
def test_what_does_not_fit_ends_with_a_sentence(sharing, arguments, sentence, settings, tmp_path, capsys):
    path = write_config(tmp_path / "config.yaml", {**settings, "sharing": sharing, "sharing_args": arguments})
    assert main(["train", path]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "sharing.safetensors").exists()
