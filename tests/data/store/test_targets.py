"""Targets of heads: classes, numbers, missing ones, and answers that are neither."""

import json

import numpy as np
import pytest
from transformers import BertTokenizerFast

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data import (
    Encoder,
    Opener,
    RowSpec,
    Source,
    SplitRules,
    collate,
    get_template,
    label_names,
    load_rows,
    unseen_labels,
    with_targets,
)
from mtl_opt.data.registry import Entry
from mtl_opt.errors import InputError, UnknownNameError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "wolf", "##gang", "lives", "in", "berlin", "good", "好", "坏", "很"]


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})


@pytest.fixture
def load(tokenizer, tmp_path):
    """Write rows of one task and load them with a head that reads them so; nothing is held out."""

    def run(rows, reads, cutoff_len=32, cache=False, cutting=True):
        path = tmp_path / "任务.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        encoder = Encoder(tokenizer, get_template("default"), cutoff_len, allow_cutting=cutting, heads={"t": reads})
        opener = Opener(encoder, cache=tmp_path / "cache" if cache else None, keep_small=True)
        source = Source(str(path), spec=RowSpec(labels=True), task="t")
        return load_rows([Entry(source)], opener, SplitRules())

    return run


def targets_of(found, names, words=False):
    return with_targets("t", found.train["t"], found.train_tokens["t"], names, words=words, skip_bad_rows=False)[1]


def test_targets_are_class_indices_numbers_or_missing(load):
    rows = [{"text": "good", "label": label} for label in ("b", "a", None, 1, "")]
    found = load(rows, "row")
    assert label_names(found.train["t"], words=False) == ["1", "a", "b"]
    train = with_targets("t", found.train["t"], found.train_tokens["t"], ["a", "b"], words=False, skip_bad_rows=False)[
        1
    ]
    assert [str(row.target) for row in train] == ["1.0", "0.0", "nan", "1.0", "nan"]
    assert all(set(row.labels) == {IGNORE_INDEX} for row in train)
    batch = collate([[], list(train[:3])], 0)
    assert [str(float(t)) for t in batch.targets] == ["1.0", "0.0", "nan"]
    assert batch.task_ids.tolist() == [1, 1, 1]
    numbers = load([{"instruction": "good", "output": value} for value in (0.5, "2", -1, None)], "row")
    train = targets_of(numbers, None, words=False)
    assert [str(row.target) for row in train] == ["0.5", "2.0", "-1.0", "nan"]


@pytest.mark.parametrize(
    ("label", "names", "error", "sentence"),
    [
        ("negativ", ["negative", "positive"], UnknownNameError, r"line 1\): `negativ`\. Did you mean `negative`\?"),
        (2, ["negative", "positive"], InputError, "label 2 of task `t` is out of range; it has 2 labels, 0 to 1"),
        (-1, ["negative", "positive"], InputError, "label -1 of task `t` is out of range"),
        ("many", None, InputError, "needs a finite number, got `many`"),
        ("inf", None, InputError, "needs a finite number, got `inf`"),
    ],
)
def test_answers_that_are_no_label_or_number_are_refused(load, label, names, error, sentence):
    found = load([{"text": "good", "label": label}], "row")
    parts = "t", found.train["t"], found.train_tokens["t"], names
    with pytest.raises(error, match=sentence):
        with_targets(*parts, words=False, skip_bad_rows=False)
    rows, tokens, bad = with_targets(*parts, words=False, skip_bad_rows=True)
    assert len(rows) == len(tokens) == 0
    assert "line 1" in bad[0]


def test_a_blank_that_is_not_plain_is_a_letter_of_a_word(load):
    found = load([{"tokens": ["il", "10\u00a0000", "好\u3000坏"], "tags": ["O", "B-N", "B-X"]}], "words")
    assert label_names(found.train["t"], words=True) == ["B-N", "B-X", "O"]
    view = targets_of(found, ["B-N", "B-X", "O"], words=True)
    assert view.words[0][1].tolist() == [2, 0, 1]
    for word in ("b c", ""):
        with pytest.raises(InputError, match=rf"line 1: `tokens` holds '{word}' as word 2; words are texts"):
            load([{"tokens": ["a", word], "tags": ["O", "O"]}], "words")


def test_words_beyond_the_cut_are_missed_not_dropped(load):
    rows = [{"tokens": ["wolfgang", "lives", "in", "berlin"], "tags": ["B-PER", "O", None, "B-LOC"]}]
    names = ["B-LOC", "B-PER", "O"]
    assert targets_of(load(rows, "words"), names, words=True).missed == [[]]
    cut = targets_of(load(rows, "words", cutoff_len=4), names, words=True)
    assert (cut.num_answerable, cut.missed) == (1, [["O", "B-LOC"]])
    assert cut.pick(np.array([0])).missed == cut.missed


def test_labels_without_a_class_are_missed_where_they_are_allowed(load):
    found = load([{"text": "good", "label": label} for label in ("a", "新", "1", None)], "row")
    view, tokens = found.train["t"], found.train_tokens["t"]
    unseen = unseen_labels(view, ["a", "b"], words=False)
    assert unseen == ["新"]  # 1 is the index of a class
    kept, targets, _ = with_targets("t", view, tokens, ["a", "b"], words=False, skip_bad_rows=False, unseen=unseen)
    assert (len(kept), targets.missed) == (4, [[], ["新"], [], []])
    assert [str(target) for target in targets.targets] == ["0.0", "nan", "1.0", "nan"]
