"""Text files as records: what a bad line, another encoding or another separator comes to."""

from pathlib import Path

import pytest

from mtl_opt.data.read.files import guess_encoding, read_records
from mtl_opt.data.read.sources import read_rows
from mtl_opt.errors import InputError

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


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    for name, answer in (("b.jsonl", "second"), ("a.json", "first")):
        row = f'{{"instruction": "x", "output": "{answer}"}}'
        (tmp_path / name).write_text(f"[{row}]" if name.endswith(".json") else row, encoding="utf-8")
    (tmp_path / "notes.md").write_text("no data", encoding="utf-8")
    assert [row.output for row in read_rows(tmp_path)] == ["first", "second"]
