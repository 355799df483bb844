"""Text files as records: bad lines, encodings, separators, and the line on which each row begins."""

import csv
import json
from pathlib import Path

import pytest

from mtl_opt.data.read.files import Layout, guess_encoding, read_records, stop_at_first
from mtl_opt.data.read.sources import read_rows
from mtl_opt.errors import InputError

GOOD = {"instruction": "Is the customer angry?", "input": "客户：怎么\n还没到！", "output": "是", "task_name": "情绪"}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(*records: object) -> str:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)


def write_csv(path: Path, records: list[list[str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(records)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str) -> None:
    content = {
        "a.jsonl": jsonl(GOOD),
        "a.json": json.dumps([GOOD]),
        "a.csv": "instruction,output,task_name\r\n问,答,情绪\r\n",
    }[name]
    (row,) = read_rows(write(tmp_path, name, content.encode("utf-8-sig")))
    assert row.task == "情绪"


def test_blank_lines_of_json_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.jsonl", f"\n{jsonl(GOOD)}\r\n  \n{jsonl(GOOD)}\n\n"))
    assert [row.line for row in rows] == [2, 4]


def test_a_line_separator_within_a_json_string_ends_no_line(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path, "a.jsonl", jsonl({**GOOD, "output": "a\u2028b\x85c"})))
    assert row.output == "a\u2028b\x85c"


def test_json_rows_are_counted_from_one(tmp_path: Path) -> None:
    assert [row.line for row in read_rows(write(tmp_path, "a.json", json.dumps([GOOD, GOOD], indent=1)))] == [1, 2]


def test_csv_rows_know_the_line_on_which_they_begin(tmp_path: Path) -> None:
    content = 'instruction,output\n"two\nlines","yes, and\r\nno"\n\nb,c\n'
    rows = read_rows(write(tmp_path, "a.csv", content))
    assert [(row.line, row.instruction, row.output) for row in rows] == [
        (2, "two\nlines", "yes, and\r\nno"),
        (6, "b", "c"),
    ]


def test_csv_takes_longer_fields_than_the_module_does_by_itself(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    (row,) = read_rows(write_csv(tmp_path / "a.csv", [["instruction", "output"], ["x" * 200_000, "y"]]))
    assert len(row.instruction) == 200_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", jsonl(GOOD) + '\n{"instruction": ', ["line 2", "broken JSON"]),
        ("a.jsonl", '{"instruction": "half \\ud83d", "output": "b"}', ["line 1", "surrogate"]),
        ("a.jsonl", "[" * 100_000, ["line 1", "JSON"]),
        ("a.json", "[\n{},\n{]", ["line 3", "broken JSON"]),
        ("a.json", jsonl(GOOD, GOOD) + "\n{", ["element 3", "broken JSON"]),
        ("a.json", json.dumps({"data": [GOOD]}), ["must hold a list", "`field: data` reads the list"]),
        ("a.txt", jsonl(GOOD) + "\n{", ["line 2", "broken JSON"]),
        ("a.json", json.dumps(GOOD), ["must hold a list of objects", "an object"]),
        ("a.csv", "instruction,output\na\n", ["line 2", "fields is 1", "header has 2"]),
        ("a.csv", "instruction,output\na,b,c\n", ["line 2", "fields is 3"]),
        ("a.csv", 'instruction,output\na,b\n"a,b\n', ["line 3", "broken CSV"]),
        ("a.csv", "instruction,output,output\na,b,c\n", ["line 1", "twice"]),
        ("a.csv", "instruction;output\na;b\n", ["line 1", "';' seems to part the columns"]),
        ("a.tsv", "instruction,output\na,b\n", ["line 1", "',' seems to part the columns"]),
        (
            "a.csv",
            "question,output\na,b\n",
            ["line 2", "like every other", "header: false"],
        ),
        ("a.csv", "instruction,output,task_name\na,b,\n", ["line 2", "`task_name` is empty"]),
        ("a.jsonl", "", ["no rows"]),
        ("a.jsonl", "\n \n", ["no rows"]),
        ("a.json", "", ["no rows"]),
        ("a.json", "[]", ["no rows"]),
        ("a.csv", "", ["no rows"]),
        ("a.csv", "instruction,output\n", ["no rows"]),
        ("a.jsonl", b'{"instruction"\n: "\xff"', ["not UTF-8", "0xff", "line 2", "byte 4"]),
        (
            "a.text",
            "a",
            ["unknown extension", ".jsonl, .json, .csv, .tsv, .txt, .conll", ".parquet, .arrow; any other"],
        ),
        ("a.bin", b"\xff", ["unknown extension"]),
        ("a", "a", ["unknown extension"]),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_rule(
    tmp_path: Path, name: str, content: str | bytes, words: list[str]
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.jsonl` does not exist"):
        read_rows(tmp_path / "nothing.jsonl")


CHINESE = '{"instruction": "客户非常生气，因为信用卡被盗刷了。", "output": "是的"}'


def records(path: Path, content: str | bytes, errors: list[InputError] | None = None) -> list[tuple[int, object]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(str(path), (errors if errors is not None else []).append))


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("gbk", "GB18030"), ("gb18030", "GB18030"), ("utf-16", "UTF-16"), ("utf-16-be", None)],
)
def test_chinese_in_another_encoding_is_named(tmp_path: Path, encoding: str, name: str | None) -> None:
    with pytest.raises(InputError, match="not UTF-8") as caught:
        records(tmp_path / "a.jsonl", CHINESE.encode(encoding))
    if name is not None:
        assert f"It looks like {name}" in str(caught.value)


def test_latin_1_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"It looks like Latin-1"):
        records(tmp_path / "a.txt", "Où est le café, déjà fermé à midi ?".encode("latin-1"))
    assert guess_encoding(b"\x00\xff\x00\x01") is None


def test_a_tab_separates_and_a_quotation_mark_is_a_letter(tmp_path: Path) -> None:
    found = records(tmp_path / "a.tsv", 'instruction\toutput\r\nhe said "no\tyes\r\n\r\n客户\t是\n')
    assert found == [
        (2, {"instruction": 'he said "no', "output": "yes"}),
        (4, {"instruction": "客户", "output": "是"}),
    ]


def test_every_line_of_a_text_is_a_row_learnt_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("从前\n\nthere was\r\n", encoding="utf-8", newline="")
    assert [(row.line, row.output, row.asks) for row in read_rows(tmp_path / "a.txt")] == [
        (1, "从前", "nobody"),
        (3, "there was", "nobody"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [("a.jsonl", '{"a": 1}\n{\n{"a": 2}\nx', [2, 4]), ("a.csv", "a,b\n1,2\n3\n4,5\n6,7,8\n", [3, 5])],
)
def test_bad_lines_are_reported_and_the_others_read(tmp_path: Path, name: str, content: str, lines: list[int]) -> None:
    errors: list[InputError] = []
    assert len(records(tmp_path / name, content, errors)) == 2
    assert [f"line {line}:" in str(error) for line, error in zip(lines, errors, strict=True)] == [True, True]


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.ndjson", "数据", "a.data"])
def test_json_lines_are_read_under_any_ending(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, jsonl(GOOD, {**GOOD, "output": "否"}) + "\n")
    assert [row.output for row in read_rows(path)] == ["是", "否"]


def test_a_path_of_keys_leads_to_nested_rows(tmp_path: Path) -> None:
    path = str(write(tmp_path, "a.json", json.dumps({"data": {"train": [GOOD], "size": 1}})))
    assert list(read_records(path, stop_at_first, Layout(field="data.train"))) == [(1, GOOD)]
    for field, words in (("data", "must lead to a list of objects, got an object"), ("data.dev", "it has train, size")):
        with pytest.raises(InputError, match=words):
            list(read_records(path, stop_at_first, Layout(field=field)))


@pytest.mark.parametrize(("name", "content"), [("a.csv", 'b,"a, x",1\n\nd,c,2\n'), ("a.tsv", "b\ta, x\t1\r\nd\tc\t2")])
def test_columns_of_a_table_without_header_are_numbered(tmp_path: Path, name: str, content: str) -> None:
    found = list(read_records(str(write(tmp_path, name, content)), stop_at_first, Layout(header=False)))
    assert [record for _, record in found] == [{"1": "b", "2": "a, x", "3": "1"}, {"1": "d", "2": "c", "3": "2"}]
    assert found[0][0] == 1


def test_a_table_without_header_has_one_width(tmp_path: Path) -> None:
    path = str(write(tmp_path, "a.csv", "a,b\nc\n"))
    with pytest.raises(InputError, match="line 2: the number of fields is 1, but the first line has 2"):
        list(read_records(path, stop_at_first, Layout(header=False)))
    with pytest.raises(InputError, match=r"`header: false` goes with a \.csv or \.tsv file"):
        list(read_records(str(write(tmp_path, "a.txt", "a")), stop_at_first, Layout(header=False)))


CONLL = """-DOCSTART- -X- O

# 1 comment of more words
Il PRP O
10\u00a0000 CD B-N

# O O
客户 NN B-P
"""


def test_a_blank_line_ends_a_sentence_of_a_word_file(tmp_path: Path) -> None:
    found = list(read_records(str(write(tmp_path, "a.conll", CONLL)), stop_at_first))
    assert found == [
        (4, {"1": ["Il", "10\u00a0000"], "2": ["PRP", "CD"], "3": ["O", "B-N"]}),
        (7, {"1": ["#", "客户"], "2": ["O", "NN"], "3": ["O", "B-P"]}),
    ]


def test_a_line_of_a_word_file_with_other_columns_is_named(tmp_path: Path) -> None:
    path = str(write(tmp_path, "a.bio", "a O\nb c O\nd O\n\ne\n\nf\tB X\tO\n"))
    errors: list[InputError] = []
    assert [record for _, record in read_records(path, errors.append)] == [{"1": ["f"], "2": ["B X"], "3": ["O"]}]
    assert ["line 2: the number of columns is 3" in str(errors[0]), "line 5" in str(errors[1])] == [True, True]


def test_two_files_are_read_line_by_line(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a.en", "one\n\nthree\n"), write(tmp_path, "a.zh", "一\n\n三")
    found = list(read_records(str(first), stop_at_first, Layout(target=str(second))))
    assert found == [(1, {"instruction": "one", "output": "一"}), (3, {"instruction": "three", "output": "三"})]
    for content, words in (("一\n二\n三\n", "line 2 is blank, but"), ("一\n", "has 3 lines and its `target_file`")):
        write(tmp_path, "a.zh", content)
        with pytest.raises(InputError, match=words):
            list(read_records(str(first), stop_at_first, Layout(target=str(second))))
