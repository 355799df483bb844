"""What of a source is read is said: its format, columns that nothing reads, a label that is probably meant."""

import json
from pathlib import Path

import pytest

from mtl_opt.data.read.files import stop_at_first
from mtl_opt.data.read.sources import iterate
from mtl_opt.data.read.usage import Usage, usage_sentences
from mtl_opt.data.registry import task_entries
from mtl_opt.errors import InputError

SHARED = Path(__file__).parents[4] / "shared" / "cases" / "data" / "labels"


@pytest.fixture
def said(tmp_path):
    """Read a file as an entry does, and return its rows, the notes and the warnings."""

    def run(name, content, **entry):
        (tmp_path / name).write_text(content, encoding="utf-8")
        usage = Usage()
        (found,) = task_entries({"qa": {"file": str(tmp_path / name), **entry}})
        rows = list(iterate(found.train, stop_at_first, usage))
        return rows, *usage_sentences(usage.facts(), name, "Task qa")

    return run


def lines(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_columns_that_nothing_reads_are_counted(said):
    row = {"instruction": "a", "output": "b", "编号": 1}
    assert said("a.jsonl", lines(row, row))[1:] == (["Task qa: `a.jsonl` is read as alpaca; not read: `编号`."], [])
    _, (note,), _ = said("a.jsonl", lines(row, {**row, "tags": []}, {"instruction": "a", "output": "b"}))
    assert note.endswith("not read: `编号` (2 of 3 rows), `tags` (1 of 3 rows).")
    assert said("a.jsonl", lines({"instruction": "a", "output": "b", "task_name": "qa", "group": 1}))[1] == [
        "Task qa: `a.jsonl` is read as alpaca."
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": "[]"},
        {"question": "a", "choices": ["b", "c"], "answer": 1},
        {"tokens": ["a"], "ner_tags": [1]},
        {"prompt": "a", "completion": "b", "system": "c"},
    ],
)
def test_every_column_of_a_format_counts_as_read(said, row):
    assert "not read" not in said("a.jsonl", lines(row))[1][0]


def test_a_label_beside_plain_text_is_offered(said):
    content = "text,category\nI wait for my card,card_arrival\n"
    rows, notes, (warning,) = said("a.csv", content)
    assert rows[0].asks == "nobody"
    assert notes == ["Task qa: `a.csv` is read as text; not read: `category`."]
    assert "learnt as plain text, without its column `category`; `formatting: classification` with" in warning
    rows, notes, warnings = said(
        "a.csv", content, formatting="classification", columns={"text": "text", "label": "category"}
    )
    assert (rows[0].output, warnings) == ("card_arrival", [])
    assert notes == ["Task qa: `a.csv` is read as classification."]


def test_text_without_other_columns_is_no_warning(said):
    assert said("a.txt", "one\ntwo\n")[1:] == (["Task qa: `a.txt` is read as text."], [])


def test_headless_columns_are_read_by_position(said):
    rows, notes, _ = said(
        "a.tsv", "Great\tpositive\t7\nBad\tnegative\t8\n", header=False, columns={"text": 1, "label": 2}
    )
    assert [(row.instruction, row.output, row.line) for row in rows] == [
        ("Great", "positive", 1),
        ("Bad", "negative", 2),
    ]
    assert notes == ["Task qa: `a.tsv` is read as classification; not read: `3`."]


def test_a_table_whose_header_is_a_row_is_one_sentence(tmp_path):
    (tmp_path / "a.csv").write_text("Great,positive\nBad,negative\nFine,positive\n", encoding="utf-8")
    (found,) = task_entries({"qa": {"file": str(tmp_path / "a.csv")}})
    errors = []
    with pytest.raises(InputError, match="where line 1 is a row, give `header: false`"):
        list(iterate(found.train, errors.append))
    assert not errors


@pytest.mark.parametrize(
    ("name", "entry"),
    [("a.conll", {}), ("a.txt", {"formatting": "conll"}), ("a.iob", {"columns": {"tokens": 1, "tags": 3}})],
)
def test_word_files_are_rows_of_tags(said, name, entry):
    rows, notes, _ = said(name, "Il PRP O\nvit VB O\n\n北京 NN B-LOC\n", **entry)
    assert [(row.instruction, row.output, row.line) for row in rows] == [("Il vit", "O O", 1), ("北京", "B-LOC", 4)]
    assert notes[0].endswith("; not read: `2`.")


def test_conllu_takes_words_and_their_part_of_speech(said):
    fields = "\t_" * 6
    content = f"# text = du x\n1-2\tdu\t_\t_{fields}\n1\tde\tde\tADP{fields}\n2\tle\tle\tDET{fields}\n\n"
    rows, _, _ = said("a.conllu", content)
    assert [(row.instruction, row.output) for row in rows] == [("de le", "ADP DET")]


def test_parallel_files_are_questions_and_answers(said, tmp_path):
    (tmp_path / "a.zh").write_text("一\n二\n", encoding="utf-8")
    rows, notes, _ = said("a.en", "one\ntwo\n", target_file=str(tmp_path / "a.zh"))
    assert [(row.instruction, row.output) for row in rows] == [("one", "一"), ("two", "二")]
    assert notes == ["Task qa: `a.en` is read as alpaca."]


def test_nested_rows_are_read_by_their_field(said):
    rows, _, _ = said("a.json", json.dumps({"v": 1, "data": [{"instruction": "a", "output": "b"}]}), field="data")
    assert rows[0].output == "b"


def test_splits_of_one_file_hold_lists_by_position(tmp_path):
    content = {"train": [["one", "a"], ["two", "b"]], "test": [["three", "a"]]}
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    entry = {"file": str(tmp_path / "a.json"), "field": "train", "eval_field": "test", "header": False}
    (found,) = task_entries({"qa": {**entry, "columns": {"text": 1, "label": 2}}})
    sides = [[(row.instruction, row.output) for row in iterate(s, stop_at_first)] for s in (found.train, found.eval)]
    assert sides == [[("one", "a"), ("two", "b")], [("three", "a")]]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"header": False}, "needs `columns` by position, from 1"),
        ({"target_file": "b", "field": "x"}, "two ways to read a file"),
        ({"target_file": "b", "formatting": "text"}, "have no columns"),
        ({"target_file": "b", "eval_file": "c"}, "`target_file` and `eval_target_file` go together"),
        ({"eval_target_file": "b"}, "goes with `eval_file`"),
    ],
)
def test_contradictions_in_how_a_file_is_read_are_refused(entry, words):
    with pytest.raises(InputError, match=words):
        task_entries({"qa": {"file": "a.csv", **entry}})


def test_the_shared_table_of_texts_and_categories_is_said():
    path = SHARED / "text_and_category.csv"
    if not path.is_file():
        pytest.skip("needs ../shared/cases")
    usage = Usage()
    list(iterate(task_entries({"qa": {"file": str(path)}})[0].train, stop_at_first, usage))
    assert "its column `category`" in usage_sentences(usage.facts(), path.name, "Task qa")[1][0]
