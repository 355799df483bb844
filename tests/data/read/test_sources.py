"""Sources: the same rows from every format and from folders, optional keys, bad rows."""

import csv
import json
from pathlib import Path

import pytest

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


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    for name, answer in (("b.jsonl", "second"), ("a.json", "first")):
        row = f'{{"instruction": "x", "output": "{answer}"}}'
        (tmp_path / name).write_text(f"[{row}]" if name.endswith(".json") else row, encoding="utf-8")
    (tmp_path / "notes.md").write_text("no data", encoding="utf-8")
    assert [row.output for row in read_rows(tmp_path)] == ["first", "second"]


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="holds no data file"):
        read_rows(tmp_path)
