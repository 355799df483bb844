"""From a configuration to what a step moves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import TASKS, config_of, log_lines
from transformers import AutoModelForCausalLM, AutoTokenizer

from mtl_opt.combiners import COMBINERS
from mtl_opt.errors import InputError
from mtl_opt.training import train, training_step
from mtl_opt.training.config.keys import SCHEDULERS
from mtl_opt.training.run.assembly import build_run
from mtl_opt.training.setup.combiner import build_combiner
from mtl_opt.training.setup.data import prepare, untrained_end
from mtl_opt.training.setup.sampler import num_steps


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_steps": -1, "num_train_epochs": 1}, 4),  # 23 rows, 6 in each step
        ({"max_steps": -1, "num_train_epochs": 2.5}, 10),
        ({"max_steps": -1, "num_train_epochs": 1, "gradient_accumulation_steps": 2}, 2),
        ({"max_steps": -1, "num_train_epochs": 0.001}, 1),
    ],
)
def test_an_epoch_draws_as_many_rows_as_there_are(settings, changes, steps):
    assert num_steps(config_of(settings, **changes), 23, 3) == steps


def rates_of(settings, **changes):
    train(config_of(settings, **changes))
    return [line["lr"] for line in log_lines_of(settings) if "lr" in line]


def log_lines_of(settings):
    return log_lines(Path(settings["output_dir"]))


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"lr_scheduler_type": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"lr_scheduler_type": "constant"}, [1, 1, 1, 1]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 2}, [0, 0.5, 1, 0.5]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 0.5}, [0, 0.5, 1, 0.5]),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 4}, [0, 0.25, 0.5, 0.75]),
        ({"lr_scheduler_type": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
    ],
    ids=str,
)
def test_the_learning_rate_of_every_step_is_that_of_its_schedule(settings, changes, rates):
    assert rates_of(settings, **changes) == pytest.approx([0.01 * rate for rate in rates], rel=1e-5)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_schedule_that_may_be_named_can_be_built(settings, scheduler):
    config = config_of(settings, lr_scheduler_type=scheduler, warmup_steps=1)
    run = build_run(config, prepare(config))
    assert run.parts.scheduler.get_last_lr()[0] >= 0


@pytest.mark.parametrize("combiner", ["sum", "weighted", "pcgrad"])
def test_the_weight_of_a_task_scales_its_gradient_before_every_combiner_and_once(settings, combiner):
    for task, weight in zip(TASKS, (1.0, 2.0, 0.5), strict=True):
        settings["tasks"][task]["weight"] = weight
    run = build_run(config := config_of(settings, combiner=combiner), prepare(config))
    event = training_step(run.parts, run.next_batches(), 1)
    assert event.scales.tolist() == [1.0, 2.0, 0.5]
    if combiner != "pcgrad":
        assert event.weights.tolist() == [1, 1, 1]


def test_weights_are_given_once(settings):
    own = config_of(settings, combiner="weighted", combiner_args={"task_weights": [3, 4, 5]})
    assert build_combiner(own, list(TASKS), prepare(own).settings).get_buffer("fixed").tolist() == [3, 4, 5]
    settings["tasks"]["anger"]["weight"] = 2
    both = config_of(settings, combiner="weighted", combiner_args={"task_weights": [3, 4, 5]})
    with pytest.raises(InputError, match="`weight` of task `anger` both weigh tasks; give the weights once"):
        build_run(both, prepare(both))


def test_a_run_in_which_every_task_has_weight_0_is_refused(settings):
    for task in TASKS:
        settings["tasks"][task]["weight"] = 0
    with pytest.raises(InputError, match="`weight` is 0 for every task"):
        build_run(config := config_of(settings), prepare(config))


def test_a_random_combiner_follows_the_seed_of_the_run(settings):
    config = config_of(settings, combiner="pcgrad", seed=7)
    assert build_combiner(config, list(TASKS), prepare(config).settings).seed == 7
    own = config_of(settings, combiner="pcgrad", combiner_args={"seed": 3})
    assert build_combiner(own, list(TASKS), prepare(own).settings).seed == 3


@pytest.mark.parametrize("combiner", sorted(COMBINERS))
def test_an_unknown_argument_is_named_for_every_combiner(settings, combiner):
    config = config_of(settings, combiner=combiner, combiner_args={"unheard_of": 1})
    with pytest.raises(InputError, match="no argument `unheard_of`"):
        build_combiner(config, list(TASKS), prepare(config).settings)


def test_the_batches_of_a_run_depend_on_its_seed_alone(settings):
    def first_batch(**changes):
        config = config_of(settings, **changes)
        return build_run(config, prepare(config)).next_batches()[0].input_ids.tolist()

    assert first_batch(seed=1) == first_batch(seed=1, combiner="pcgrad", lora_dropout=0.2) != first_batch(seed=2)


def test_the_engine_asked_for_is_used_or_refused(settings):
    config = config_of(settings, gradient_engine="per_task")
    assert build_run(config, prepare(config)).parts.grads.engine.name == "per_task"
    tied = config_of(settings, gradient_engine="one_pass", finetuning_type="full")
    with pytest.raises(InputError, match="`gradient_engine: one_pass`"):
        build_run(tied, prepare(tied))


def test_only_tasks_keeps_the_order_of_the_data(settings):
    data = prepare(config_of(settings))
    assert data.only(["anger", "qa"]).tasks == ["qa", "anger"]
    assert data.only(None) is data
    with pytest.raises(InputError, match="Did you mean `anger`"):
        data.only(["angr"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda table: table[0].mul(0), "looks untrained"),
        (lambda table: table.mean(dim=0), "looks untrained"),
        (lambda table: table[1], None),
    ],
    ids=["zeros", "mean", "trained"],
)
def test_an_end_that_the_model_never_saw_is_said(settings, tmp_path, caplog, spoil, words):
    model = AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model_name_or_path"])
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[tokenizer.eos_token_id] = spoil(table)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    config = config_of(settings, model_name_or_path=str(tmp_path / "model"))
    build_run(config, prepare(config))
    assert ("eos token `" in caplog.text) == (words is not None)
    assert (words or "") in caplog.text


def test_an_end_beyond_the_vocabulary_is_said(settings):
    model = AutoModelForCausalLM.from_pretrained(settings["model_name_or_path"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model_name_or_path"])
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.add_special_tokens({"eos_token": "<added>"})
    prepared = replace(prepare(config_of(settings)), tokenizer=tokenizer)
    assert f"has id {len(tokenizer) - 1}, but the model's embedding has" in untrained_end(prepared, model)
