import csv
import json
from pathlib import Path

import pytest

from mtl_opt.data.read.rows import Row
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


def test_user_text_joins_instruction_and_input_by_a_line_break() -> None:
    assert Row("a", "b", "c", None, "f", 1).user_text == "a\nb"


@pytest.mark.parametrize(("instruction", "text"), [("a", ""), ("", "a")])
def test_user_text_has_no_line_break_where_a_part_is_empty(instruction: str, text: str) -> None:
    assert Row(instruction, text, "c", None, "f", 1).user_text == "a"


def test_the_three_formats_give_the_same_rows(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, "a.jsonl", jsonl(GOOD)),
        write(tmp_path, "a.JSON", json.dumps([GOOD])),
        write_csv(tmp_path / "a.csv", [list(GOOD), list(GOOD.values())]),
    ]
    for path in paths:
        (row,) = read_rows(str(path))
        assert (row.instruction, row.input, row.output, row.task) == tuple(GOOD.values())
        assert row.file == str(path)


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


def test_optional_keys_may_be_absent_or_null_and_others_are_ignored(tmp_path: Path) -> None:
    records = [
        {"instruction": "a", "output": "b"},
        {"instruction": "a", "output": "b", "input": None, "task_name": None, "id": 3},
    ]
    for row in read_rows(write(tmp_path, "a.jsonl", jsonl(*records))):
        assert (row.input, row.task) == ("", None)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"instruction": "a"}, ["`output`", "missing", "the row has instruction"]),
        ({"output": "a", "id": 1}, ["`instruction`", "missing", "output, id"]),
        ({}, ["`instruction`", "the row has none"]),
        ({**GOOD, "output": ""}, ["`output` is empty"]),
        ({**GOOD, "output": " \n\u3000"}, ["`output` is empty"]),
        ({**GOOD, "output": 3}, ["`output`", "must be a string", "the number 3"]),
        ({**GOOD, "output": None}, ["`output`", "must be a string", "null"]),
        ({**GOOD, "output": ["a"]}, ["`output`", "must be a string", "a list"]),
        ({**GOOD, "instruction": True}, ["`instruction`", "must be a string", "the boolean true"]),
        ({**GOOD, "input": {}}, ["`input`", "must be a string", "an object"]),
        ({"instruction": " ", "input": "", "output": "a"}, ["`instruction` and `input` are both empty"]),
        ({**GOOD, "task_name": 3}, ["`task_name`", "must be a string", "the number 3"]),
        ({**GOOD, "task_name": " "}, ["`task_name` is empty"]),
        (["a"], ["must be an object", "a list"]),
        ("text", ["must be an object", "the string 'text'"]),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_rule(tmp_path: Path, record: object, words: list[str]) -> None:
    lines = write(tmp_path, "a.jsonl", jsonl(GOOD, record))
    elements = write(tmp_path, "a.json", json.dumps([GOOD, record]))
    for path, where in ((lines, "line 2"), (elements, "element 2")):
        with pytest.raises(InputError) as caught:
            read_rows(path)
        for word in [f"`{path}`, {where}", *words]:
            assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", jsonl(GOOD) + '\n{"instruction": ', ["line 2", "broken JSON"]),
        ("a.jsonl", '{"instruction": "half \\ud83d", "output": "b"}', ["line 1", "surrogate"]),
        ("a.jsonl", "[" * 100_000, ["line 1", "JSON"]),
        ("a.json", "[\n{},\n{]", ["line 3", "broken JSON"]),
        ("a.json", jsonl(GOOD, GOOD), ["line 2", ".jsonl"]),
        ("a.json", json.dumps(GOOD), ["must hold a list of objects", "an object"]),
        ("a.csv", "instruction,output\na\n", ["line 2", "fields is 1", "header has 2"]),
        ("a.csv", "instruction,output\na,b,c\n", ["line 2", "fields is 3"]),
        ("a.csv", 'instruction,output\na,b\n"a,b\n', ["line 3", "broken CSV"]),
        ("a.csv", "instruction,output,output\na,b,c\n", ["line 1", "twice"]),
        ("a.csv", "instruction;output\na;b\n", ["line 2", "`instruction` is missing", "instruction;output"]),
        ("a.csv", "instruction,output,task_name\na,b,\n", ["line 2", "`task_name` is empty"]),
        ("a.jsonl", "", ["no rows"]),
        ("a.jsonl", "\n \n", ["no rows"]),
        ("a.json", "", ["no rows"]),
        ("a.json", "[]", ["no rows"]),
        ("a.csv", "", ["no rows"]),
        ("a.csv", "instruction,output\n", ["no rows"]),
        ("a.jsonl", b'{"instruction"\n: "\xff"', ["not UTF-8", "0xff", "line 2", "byte 4"]),
        ("a.text", "a", ["unknown extension", ".jsonl, .json, .csv, .tsv, .txt, .parquet, .arrow"]),
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
