"""Opening a source: bad rows, small sources, a sample of its rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.sources import Source
from mtl_opt.data.read.usage import usage_sentences
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.errors import InputError


@pytest.fixture
def opener(plain_tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Opener:
    return Opener(Encoder(plain_tokenizer, get_template("default"), 40), cache=tmp_path / "cache", keep_small=True)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    rows: list[dict[str, Any]] = [
        {"instruction": f"问 {i}", "output": f"a {i} " * (1 + i % 9), "task": "乙" if i % 3 == 0 else "a"}
        for i in range(1200)
    ]
    rows[5] |= {"history": [["x", "y"]], "system": "Be brief."}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return Source(str(path))


def test_small_sources_are_not_cached_unless_asked(opener: Opener, source: Source) -> None:
    table = replace(opener, keep_small=False).open(source)
    assert table.rows[5].history[0].text == "x"
    assert opener.cache is not None
    assert not opener.cache.exists()


def test_bad_rows_are_left_out_and_listed_also_from_the_cache(opener: Opener, source: Source) -> None:
    path = Path(source.path)
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[3], lines[4] = '{"instruction": "no answer"}', "{"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=r"line 4: the key `output` is missing"):
        opener.open(source)
    skipping = replace(opener, skip_bad_rows=True)
    for _ in range(2):
        table = skipping.open(source)
        assert len(table.rows) == len(table.tokens) == 1198
        assert ["line 4" in table.bad[0], "line 5" in table.bad[1], len(table.bad)] == [True, True, 2]


def test_a_source_without_a_good_row_is_refused(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"has no good row: .*line 1"):
        replace(opener, skip_bad_rows=True).open(Source(str(tmp_path / "bad.jsonl")))


def test_num_rows_draws_the_same_rows_in_every_run(opener: Opener, source: Source) -> None:
    tables = [replace(opener, cache=None).open(replace(source, num_rows=10)) for _ in range(2)]
    lines = [row.line for row in tables[0].rows]
    assert lines == [row.line for row in tables[1].rows] == sorted(lines)
    assert len(lines) == 10
    assert lines != list(range(1, 11))


def test_what_was_read_and_drawn_is_kept_in_the_cache(opener: Opener, source: Source) -> None:
    for table in (opener.open(replace(source, num_rows=7)) for _ in range(2)):
        notes, warnings = usage_sentences(table.usage, "rows.jsonl", "Task a")
        assert notes[0] == "Task a: `rows.jsonl` is read as alpaca."
        assert notes[1].startswith("Task a: 7 of the 1200 rows of `rows.jsonl` are taken (`max_samples`")
        assert not warnings
        assert table.marks.shape == (7, 3)
