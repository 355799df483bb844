"""Rows of tasks that a head answers: their tokens, and the first token of each word."""

import json

import pytest
from transformers import BertTokenizerFast

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data import (
    Encoder,
    Opener,
    RowSpec,
    Source,
    SplitRules,
    get_template,
    label_names,
    load_rows,
    read_rows,
    with_targets,
)
from mtl_opt.data.registry import Entry
from mtl_opt.errors import InputError

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


def tokens_of(found, tokenizer):
    return [tokenizer.convert_ids_to_tokens(row.input_ids) for row in found.train_tokens["t"]]


def targets_of(found, names, words=False):
    return with_targets("t", found.train["t"], found.train_tokens["t"], names, words=words, skip_bad_rows=False)[1]


def test_a_row_is_what_is_asked_with_the_tokenizers_own_marks(load, tokenizer):
    rows = [{"text": "wolfgang lives", "label": "a"}, {"instruction": "很", "input": "好", "output": "b"}]
    found = load([rows[0]], "row")
    assert tokens_of(found, tokenizer) == [["[CLS]", "wolf", "##gang", "lives", "[SEP]"]]
    pair = load([rows[1]], "row")
    assert tokens_of(pair, tokenizer) == [["[CLS]", "很", "[SEP]", "好", "[SEP]"]]


def test_a_long_row_keeps_the_marks(load, tokenizer):
    found = load([{"text": "wolfgang lives in berlin", "label": "a"}], "row", cutoff_len=4)
    assert tokens_of(found, tokenizer) == [["[CLS]", "wolf", "##gang", "[SEP]"]]
    assert found.train_tokens["t"].num_shortened == 1
    with pytest.raises(InputError, match=r"line 1: the row has 7 tokens"):
        load([{"text": "wolfgang lives in berlin", "label": "a"}], "row", cutoff_len=4, cutting=False)


@pytest.mark.parametrize("cache", [False, True])
def test_tags_stand_at_the_first_token_of_their_words(load, cache):
    rows = [
        {"tokens": ["Wolfgang", "lives", "in", "Berlin"], "ner_tags": ["PER", "O", None, "LOC"]},
        {"tokens": ["很", "好"], "ner_tags": [0, 2]},
        {"tokens": ["in"], "ner_tags": None},
    ]
    found = load(rows, "words", cache=cache)
    names = ["LOC", "O", "PER"]
    assert label_names(found.train["t"], words=True) == ["0", "2", "LOC", "O", "PER"]
    train = targets_of(found, names, words=True)
    i = IGNORE_INDEX
    assert [row.labels for row in train] == [[i, 2, i, 1, i, 0, i], [i, 0, 2, i], [i, i, i]]
    assert train.num_labelled == 2


def test_words_that_were_cut_lose_their_tags(load):
    found = load([{"tokens": ["wolfgang", "lives", "in"], "tags": ["A", "B", "A"]}], "words", cutoff_len=4)
    train = targets_of(found, ["A", "B"], words=True)
    assert [row.labels for row in train] == [[IGNORE_INDEX, 0, IGNORE_INDEX, IGNORE_INDEX]]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "one tag without white space per word, got 1 for 2"),
        ({"tokens": ["New York"], "tags": ["O"]}, "holds 'New York' as word 1"),
        ({"tokens": [], "tags": []}, "`tokens` is empty"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "must be lists"),
        ({"tokens": ["a"]}, "the key `tags` is missing"),
        ({"instruction": "a b", "output": "O"}, "got 1 labels for 2 words"),
    ],
)
def test_bad_rows_of_words_are_refused(load, row, sentence):
    with pytest.raises(InputError, match=sentence):
        load([row], "words")


def test_without_a_head_an_answer_is_still_needed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "x", "output": ""}\n', encoding="utf-8")
    with pytest.raises(InputError, match="`output` is empty"):
        read_rows(path)
    path.write_text('{"instruction": "x", "output": 3}\n', encoding="utf-8")
    with pytest.raises(InputError, match="must be a string"):
        read_rows(path)
