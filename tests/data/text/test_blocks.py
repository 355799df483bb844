"""Long plain text in blocks: nothing of a document is lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.rows import Row
from mtl_opt.data.read.sources import Source
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.store.streams import StreamRows
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template

Tokenizer = PreTrainedTokenizerBase
CASES = Path(__file__).parents[4] / "shared" / "cases" / "data"


def text_row(text: str) -> Row:
    return Row("", "", text, None, "f", 1, asks="nobody")


def blocks_encoder(tokenizer: Tokenizer, cutoff_len: int) -> Encoder:
    return Encoder(tokenizer, get_template("default"), cutoff_len, task="x", blocks=True)


@pytest.mark.parametrize("cutoff_len", [3, 7, 64])
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip))
def test_blocks_hold_the_whole_text_and_the_last_one_ends_it(
    plain_tokenizer: Tokenizer, cutoff_len: int, text: str
) -> None:
    encoder = blocks_encoder(plain_tokenizer, cutoff_len)
    rows = list(encoder.in_blocks([text_row(text)]))
    assert "".join(row.output for row in rows) == text
    assert [row.ends for row in rows] == [False] * (len(rows) - 1) + [True]
    for row, found in zip(rows, encoder.encode(rows), strict=True):
        one_character = len(row.output) == 1  # whose bytes stay together, whatever the cutoff
        assert one_character or not found.shortened
        assert found.shortened or (found.input_ids[-1] == plain_tokenizer.eos_token_id) == row.ends


def test_a_row_with_a_question_is_no_text_to_divide(plain_tokenizer: Tokenizer, make_row: Callable[..., Row]) -> None:
    rows = [make_row("word " * 50), text_row("short")]
    assert list(blocks_encoder(plain_tokenizer, 20).in_blocks(rows)) == rows
    assert list(replace(blocks_encoder(plain_tokenizer, 20), blocks=False).in_blocks(rows)) == rows


@pytest.mark.parametrize("cached", [True, False])
def test_a_long_document_is_read_in_blocks_from_a_file_and_a_stream(
    plain_tokenizer: Tokenizer, tmp_path: Path, cached: bool
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("关于许多事物 one long document. " * 40 + "\nshort\n", encoding="utf-8")
    encoder = blocks_encoder(plain_tokenizer, 64)
    opener = Opener(encoder, cache=tmp_path / "cache" if cached else None, keep_small=True)
    for _ in range(2):
        table = opener.open(Source(str(path), task="x"))
        rows = [table.rows[i] for i in range(len(table.rows))]
        assert "".join(row.output for row in rows) == path.read_text(encoding="utf-8").replace("\n", "")
        assert table.usage["blocks"] == len(rows) > 20
        assert sum(row.ends for row in rows) == 2
    stream = StreamRows(Source(str(path), task="x"), encoder, 1000, 3, held_out=0, skip_bad_rows=False)
    assert sorted(stream[i].input_ids for i in range(len(rows))) == sorted(e.input_ids for e in encoder.encode(rows))


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
def test_the_long_document_of_the_shared_cases(plain_tokenizer: Tokenizer) -> None:
    table = Opener(blocks_encoder(plain_tokenizer, 64)).open(Source(str(CASES / "long_text" / "long.txt"), task="x"))
    text = (CASES / "long_text" / "long.txt").read_text(encoding="utf-8").strip("\n")
    assert "".join(row.output for row in table.rows) == text
