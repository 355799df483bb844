"""Heads through the command line: a BERT and a Llama with tasks of every kind, resumed, measured again, refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_run import config_of, rows_of, write_config, write_jsonl
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from training.run.test_checkpoint import comparable, cut_back
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5Model

from mtl_opt import cli
from mtl_opt.training import train
from mtl_opt.training.run.measurement import evaluate_folder
from mtl_opt.training.setup.data import prepare

HEADS = {
    "情感": {"type": "classification"},
    "score": {"type": "regression", "pooling": "mean"},
    "items": {"type": "token_classification", "labels": ["O", "B"], "dropout": 0.3},
}


def head_rows(task, number):
    """Make rows of one of the tasks; every fifth has no label."""
    texts = ["很 好", "不 好 吃", "good food", "bad", "so so food"]
    found = []
    for i in range(number):
        text = texts[i % 4]
        label = {"情感": ["好", "坏"][i % 2], "score": i % 3 - 0.5, "items": None}[task]
        if task == "items":
            tags = [int(word in {"food", "吃"}) for word in text.split()]
            found.append({"tokens": text.split(), "ner_tags": None if i % 5 == 4 else tags})
        else:
            found.append({"text": text, "label": None if i % 5 == 4 else label})
    return found


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Save an untrained BERT of two layers, with dropout, and a tokenizer of some 50 words."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"很好不吃坏", "good", "food", "bad", "so"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def head_settings(settings, bert, tmp_path):
    """Give the settings of a run of four steps with three heads on the BERT."""
    tasks = {
        task: {
            "file": write_jsonl(tmp_path / f"{task}.jsonl", head_rows(task, 10)),
            "eval_file": write_jsonl(tmp_path / f"{task}.eval.jsonl", head_rows(task, 5)),
        }
        for task in HEADS
    }
    return {**settings, "model_name_or_path": bert, "tasks": tasks, "heads": HEADS, "combiner": "pcgrad"}


@pytest.fixture
def mixed_settings(head_settings, model_folder, task_files):
    """The same on the Llama, with a task with a private output adapter and one without a head."""
    tasks = {**head_settings["tasks"], "qa": task_files["qa"], "anger": task_files["anger"]}
    heads = {**HEADS, "qa": {"type": "lm", "rank": 2}}
    return {**head_settings, "model_name_or_path": model_folder, "tasks": tasks, "heads": heads}


def test_an_encoder_is_trained_measured_and_measured_again(head_settings, tmp_path, capsys):
    assert cli.main(["train", write_config(tmp_path / "c.yaml", head_settings)]) == 0
    folder = Path(head_settings["output_dir"])
    results = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
    metrics = {"情感": {"loss", "accuracy", "f1_macro"}, "items": {"loss", "accuracy", "f1_macro"}}
    for task, names in metrics.items():
        assert all(f"{part}eval_{task}_{name}" in results for name in names for part in ("", "before_"))
    assert results["eval_score_mse"] == pytest.approx(results["eval_score_loss"])
    assert "eval_情感_exact_match" not in results
    assert results["gradient_engine"] == "one_pass"
    assert results["params_情感"] == 32 * 2 + 2  # a linear layer on the pooled representation
    assert json.loads((folder / "heads.json").read_text(encoding="utf-8"))["tasks"]["情感"]["labels"] == ["坏", "好"]
    assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "FEATURE_EXTRACTION"
    again = evaluate_folder(folder)
    assert again == {key: value for key, value in results.items() if key.startswith("eval_")}
    assert "eval_情感_accuracy" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"finetuning_type": "full"},
        {"gradient_engine": "two_pass"},
        {"bf16": True, "gradient_checkpointing": True, "gradient_accumulation_steps": 2},
        {"quantization_bit": 4},
        {"sharing": "private_layers"},
        {"heads": {task: {**head, "pooling": "task_attention"} for task, head in HEADS.items() if task != "items"}},
        {"stratify_by": "label", "combiner": "modo", "rows_per_task": 4},
    ],
    ids=lambda changes: "-".join(map(str, changes)) or "plain",
)
def test_a_decoder_with_every_kind_of_task_goes_on_bit_by_bit(mixed_settings, tmp_path, changes):
    settings = {**mixed_settings, "lora_dropout": 0.2, "weight_decay": 0.1, "save_steps": 2, **changes}
    settings["heads"] = {**mixed_settings["heads"], **settings["heads"]}
    whole = train(config_of({**settings, "output_dir": str(tmp_path / "whole")}))
    assert {"eval_qa_exact_match", "eval_anger_exact_match", "eval_items_f1_macro"} <= set(whole)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "whole", again)
    shutil.rmtree(again / "adapters", ignore_errors=True)  # those of each task, with private adapters
    cut_back(again, 2)
    results = train(config_of({**settings, "resume_from_checkpoint": True, "output_dir": str(again)}))
    clock = {"time", "overhead_seconds"}
    same = [{k: v for k, v in comparable(one).items() if k not in clock} for one in (results, whole)]
    assert same[0] == same[1]
    assert (again / "heads.safetensors").read_bytes() == (tmp_path / "whole" / "heads.safetensors").read_bytes()
    assert evaluate_folder(again) == {key: value for key, value in whole.items() if key.startswith("eval_")}


@pytest.mark.slow
def test_the_table_of_a_comparison_shows_accuracy(head_settings, tmp_path, capsys):
    settings = {k: v for k, v in head_settings.items() if k != "combiner"} | {"max_steps": 2}
    config = write_config(tmp_path / "c.yaml", {**settings, "combiners": ["sum"], "seeds": [0]})
    assert cli.main(["compare", config]) == 0
    table = capsys.readouterr().out
    assert "情感" in table
    assert "acc %" in table
    assert "mse" in table


@pytest.mark.slow
def test_plan_and_data_commands_know_heads(head_settings, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", head_settings)
    for verb in (["plan"], ["data", "validate"], ["data", "stats"], ["data", "plan"]):
        assert cli.main([*verb, config, *(["--json"] if verb == ["plan"] else [])]) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[0])["private"] == (32 * 2 + 2) + (32 + 1) + (32 * 2 + 2)
    assert "All rows are good." in out


def test_rows_without_a_label_are_not_trained_on_but_may_be_held_out(head_settings):
    prepared = prepare(config_of(head_settings))
    assert {task: len(rows) for task, rows in prepared.train.items()} == dict.fromkeys(HEADS, 8)
    assert {task: len(rows) for task, rows in prepared.train_rows.items()} == dict.fromkeys(HEADS, 8)
    assert all(row.target == row.target for row in prepared.train["情感"])
    assert {task: len(rows) for task, rows in prepared.eval_encoded.items()} == dict.fromkeys(HEADS, 5)
    assert prepared.labels["情感"].tolist() == [1, 0, 1, 0, 0, 1, 0, 1]


def test_heads_are_listed(capsys):
    assert cli.main(["list", "heads", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert list(table) == ["classification", "token_classification", "regression", "lm"]
    assert "labels" in table["classification"]["arguments"]


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [
        ({"情感": {"type": "clasification"}}, "Did you mean `classification`?"),
        ({"情感": {"labels": ["a", "b"]}}, "`heads.情感.type` is missing"),
        ({"情感": {"type": "classification", "pooling": "max"}}, "value of `heads.情感.pooling`: `max`"),
        ({"情感": {"type": "regression", "labels": ["a", "b"]}}, "key under `heads.情感` (type regression): `labels`"),
        ({"情感": {"type": "classification", "labels": [True, False]}}, "put labels in quotes"),
        ({"情感": {"type": "classification", "labels": ["a"]}}, "at least two different names"),
        ({"情感": {"type": "classification", "labels": ["好", "坏坏"]}}, "`坏`. Did you mean `坏坏`?"),
        ({"情感": {"type": "regression"}}, "needs a finite number, got `好`"),
        ({"qa": {"type": "lm"}}, "task under `heads`: `qa`"),
    ],
)
def test_heads_that_do_not_fit_are_refused(head_settings, refused, heads, sentence):
    assert sentence in refused({**head_settings, "heads": heads if "qa" in heads else {**HEADS, **heads}})
    assert not Path(head_settings["output_dir"]).exists()


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [({}, "task `情感` has no head, and the encoder"), ({"情感": {"type": "lm"}}, "needs a causal language model")],
)
def test_an_encoder_cannot_answer_in_text(head_settings, refused, tmp_path, heads, sentence):
    file = write_jsonl(tmp_path / "four.jsonl", head_rows("情感", 4))  # all of them have a label
    tasks = {**head_settings["tasks"], "情感": {"file": file, "eval_file": file}}
    heads = {task: head for task, head in HEADS.items() if task != "情感"} | heads
    assert sentence in refused({**head_settings, "template": "chatml", "tasks": tasks, "heads": heads})


@pytest.mark.parametrize(
    ("task", "metric", "answers"),
    [("score", "accuracy", "numbers"), ("情感", "mse", "labels"), ("items", "bleu", "labels")],
)
def test_metrics_that_do_not_fit_a_head_are_refused(head_settings, refused, task, metric, answers):
    tasks = {**head_settings["tasks"], task: {**head_settings["tasks"][task], "metrics": [metric]}}
    assert f"`{metric}` does not fit a task that answers in {answers}" in refused({**head_settings, "tasks": tasks})


@pytest.mark.parametrize("key", ["packing", "streaming", "torch_compile"])
def test_settings_that_heads_do_not_go_with_are_refused(head_settings, refused, key):
    assert f"`{key}` does not go with `heads`" in refused({**head_settings, key: True})


def test_an_architecture_that_is_neither_encoder_nor_decoder_is_refused(head_settings, refused, bert, tmp_path):
    shutil.copytree(bert, tmp_path / "t5")
    T5Model(T5Config(vocab_size=20, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(
        tmp_path / "t5"
    )
    sentence = refused({**head_settings, "model_name_or_path": str(tmp_path / "t5")})
    assert "architecture `t5`, which is neither an encoder of text nor a causal language model" in sentence


def test_heads_made_for_other_labels_are_refused(head_settings, capsys):
    train(config_of(head_settings))
    folder = Path(head_settings["output_dir"])
    about = (folder / "heads.json").read_text(encoding="utf-8")
    (folder / "heads.json").write_text(about.replace("坏", "差"), encoding="utf-8")
    assert cli.main(["eval", str(folder)]) == 2
    assert "was made for labels 差, 好, and the run has 坏, 好" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mixed_file_holds_labelled_and_answered_rows(mixed_settings, tmp_path):
    rows = [{"task_name": "情感", "instruction": r["text"], "output": r["label"]} for r in head_rows("情感", 8)]
    rows += [{"task_name": "qa", **row} for row in rows_of("qa", 8)]
    settings = {k: v for k, v in mixed_settings.items() if k != "tasks"}
    settings |= {"train_file": write_jsonl(tmp_path / "m.jsonl", rows), "heads": {"情感": HEADS["情感"]}, "val_size": 3}
    results = train(config_of(settings))
    assert {"eval_情感_accuracy", "eval_qa_exact_match"} <= set(results)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["private_layers", "hard"])
def test_heads_are_exported_beside_plain_encoders(sharing, head_settings, tmp_path, capsys):
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel

    from mtl_opt.batch import TaskBatch, task_rows
    from mtl_opt.deploy.export_folders import ExportOptions, export
    from mtl_opt.deploy.trained_run import open_trained

    config = config_of(head_settings, sharing=sharing)
    train(config)
    run = Path(config.output_dir)
    folders = export(run, ExportOptions(str(tmp_path / "out")))
    adapters = export(run, ExportOptions(str(tmp_path / "peft"), adapter=True))
    trained = open_trained(run)
    model = trained.model()
    tokens = torch.tensor([[2, 5, 6, 3], [2, 9, 8, 3]])
    for task, folder in folders.items():
        ids = torch.full((2,), trained.tasks.index(task))
        batch = TaskBatch(tokens, torch.ones_like(tokens), tokens, ids)
        base = AutoModel.from_pretrained(config.model_name_or_path)
        with torch.no_grad(), task_rows(ids):
            expected = model.hidden(batch)
            plain = AutoModel.from_pretrained(folder)(input_ids=tokens, attention_mask=batch.attention_mask)
            loaded = PeftModel.from_pretrained(base, str(adapters[task])).eval()
            peft = loaded(input_ids=tokens, attention_mask=batch.attention_mask)
        assert torch.allclose(plain.last_hidden_state, expected, atol=1e-5)
        assert torch.allclose(peft.last_hidden_state, expected, atol=1e-5)
        weights = load_file(folder / "heads.safetensors")
        for name, value in model.head_of(task).state_dict().items():
            assert torch.equal(weights[f"{task}/{name}"], value)
        about = json.loads((folder / "heads.json").read_text(encoding="utf-8"))["tasks"]
        assert about[task]["type"] == HEADS[task]["type"]
    assert cli.main(["generate", str(run), "--task", "score", "--prompt", "good"]) == 2
    assert "has a head of type regression, which writes no text" in capsys.readouterr().err


def test_a_label_of_held_out_rows_alone_and_words_beyond_the_cut_are_misses(head_settings, tmp_path, caplog):
    rows = [{"text": "很 好", "label": "好"}, {"text": "bad", "label": "新"}, {"text": "so so", "label": "新二"}]
    head_settings["tasks"]["情感"]["eval_file"] = write_jsonl(tmp_path / "new.jsonl", rows)
    words = [{"tokens": ["good", "food", "so", "so"], "ner_tags": ["O", "B", "O", "B"]}] * 2
    head_settings["tasks"]["items"]["eval_file"] = write_jsonl(tmp_path / "words.jsonl", words)
    results = train(config_of(head_settings, max_steps=1, cutoff_len=4))  # [CLS], two words, [SEP]
    folder = Path(head_settings["output_dir"])
    said = [json.loads(line) for line in (folder / "generated_predictions.jsonl").read_text().splitlines()]
    assert [row["label"] for row in said if row["task"] == "情感"] == ["好", "新", "新二"]
    assert all(row["predict"] in {"好", "坏"} for row in said if row["task"] == "情感")
    assert results["eval_情感_accuracy"] <= 1 / 3
    tags = [(row["predict"], row["label"]) for row in said if row["task"] == "items"]
    assert sorted(label for _, label in tags) == ["B"] * 4 + ["O"] * 4
    assert sum(predict == "" for predict, _ in tags) == 4
    assert results["eval_items_accuracy"] == sum(predict == label for predict, label in tags) / 8
    assert "Task 情感: no training row has the labels `新`, `新二`" in caplog.text
    assert "of the held-out words 4 of 8, which count as misses" in caplog.text


def test_a_head_that_always_says_the_same_is_noted(head_settings, caplog):
    train(config_of(head_settings, max_steps=1, learning_rate=0.5))
    notes = [r.message for r in caplog.records if "are answered" in r.message]
    folder = Path(head_settings["output_dir"])
    said = [json.loads(line) for line in (folder / "generated_predictions.jsonl").read_text().splitlines()]
    for task in ("情感", "items"):
        constant = len({row["predict"] for row in said if row["task"] == task}) == 1
        assert constant == any(note.startswith(f"Task {task}: all ") for note in notes[-2:])
    assert notes


def test_the_shared_labels_that_only_held_out_rows_have_are_all_named(model_folder, tmp_path, caplog):
    folder = Path(__file__).parents[4] / "shared" / "cases" / "data" / "labels"
    if not folder.is_dir():
        pytest.skip("needs ../shared/cases")
    files = {"file": str(folder / "train.jsonl"), "eval_file": str(folder / "eval.jsonl")}
    settings = {"model_name_or_path": model_folder, "tasks": {"intent": files}, "output_dir": str(tmp_path / "run")}
    prepare(config_of({**settings, "heads": {"intent": {"type": "classification"}}}))
    texts = [Path(file).read_text(encoding="utf-8") for file in files.values()]
    wanted = [{json.loads(line)["label"] for line in text.splitlines()} for text in texts]
    named = ", ".join(f"`{label}`" for label in sorted(wanted[1] - wanted[0]))
    assert f"no training row has the labels {named}, and the held-out rows" in caplog.text
    prepare(config_of(settings))  # the same names, generated
    assert f"no training row has the labels {named}." in caplog.text
