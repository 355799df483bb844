"""The cache: found by everything the tokens depend on, mapped by a second start, rebuilt where it is damaged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.row_formats import RowSpec
from mtl_opt.data.read.sources import Source, TaskSettings
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template


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


def folders(opener: Opener) -> list[Path]:
    assert opener.cache is not None
    return sorted(opener.cache.iterdir())


def test_a_second_start_maps_the_same_rows_and_tokens(opener: Opener, source: Source) -> None:
    first, fresh = opener.open(source), replace(opener, cache=None).open(source)
    (folder,) = folders(opener)
    when = (folder / "ids.npy").stat().st_mtime_ns
    second = opener.open(source)
    assert (folder / "ids.npy").stat().st_mtime_ns == when
    assert second.tasks == ["乙", "a"]
    for i in (0, 1, 5, 999, 1000, 1199):
        assert first.tokens[i] == second.tokens[i] == fresh.tokens[i]
        assert first.rows[i] == second.rows[i] == fresh.rows[i]
    assert second.codes.tolist() == fresh.codes.tolist()
    assert second.tokens.ids.dtype.itemsize == 2


@pytest.mark.parametrize(
    "change",
    [
        {"cutoff_len": 30}, {"template": get_template("chatml")}, {"mask_history": True}, {"learn_prompt": True},
        {"prefix": "### Task: {task}"},
    ],
    ids=str,
)  # fmt: skip
def test_other_tokens_are_kept_apart(opener: Opener, source: Source, change: dict[str, Any]) -> None:
    first = opener.open(source)
    other = replace(opener, encoder=replace(opener.encoder, **change)).open(source)
    assert len(folders(opener)) == 2
    assert any(first.tokens[i] != other.tokens[i] for i in range(9))


def test_other_content_task_format_or_tokenizer_are_kept_apart(
    opener: Opener, source: Source, bos_tokenizer: PreTrainedTokenizerBase
) -> None:
    opener.open(source)
    opener.open(replace(source, task="b"))
    opener.open(replace(source, spec=RowSpec("alpaca")))
    opener.open(replace(source, settings=TaskSettings(instruction="Answer.")))
    replace(opener, encoder=replace(opener.encoder, tokenizer=bos_tokenizer)).open(source)
    with Path(source.path).open("a", encoding="utf-8") as file:
        file.write('\n{"instruction": "new", "output": "row"}')
    assert len(opener.open(source).rows) == 1201
    assert len(folders(opener)) == 6


@pytest.mark.parametrize("name", ["ids.npy", "meta.json", "rows.jsonl", "flags.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_cache_is_made_again_with_a_note(
    opener: Opener, source: Source, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = opener.open(source).tokens[7]
    (folder,) = folders(opener)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "cut":
        (folder / name).write_bytes(content[: len(content) // 2])
    assert opener.open(source).tokens[7] == wanted
    assert "made again" in caplog.text
    caplog.clear()
    opener.open(source)
    assert not caplog.text


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(opener: Opener, source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    table = replace(opener, cache=tmp_path / "file").open(source)
    assert len(table.rows) == 1200
    assert table.rows[1199].user_text == "问 1199"
