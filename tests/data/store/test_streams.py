"""Streams: every row once per pass, any row again, and rows held out at the beginning."""

import json
from pathlib import Path

import datasets
import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.hub import without_progress_bars
from mtl_opt.data.read.sources import Source
from mtl_opt.data.registry import task_entries
from mtl_opt.data.store.loading import SplitRules
from mtl_opt.data.store.opener import Opener
from mtl_opt.data.store.streams import StreamRows, load_streams
from mtl_opt.data.text.encoding import Encoder
from mtl_opt.data.text.template_names import get_template
from mtl_opt.errors import InputError

ROWS = [{"instruction": f"问 {i}", "output": f"a {i}"} for i in range(47)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets")
    (path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    with without_progress_bars(datasets):
        data = datasets.Dataset.from_list(ROWS)
        (path / "named").mkdir()
        data.to_parquet(path / "named" / "train.parquet")
        data.save_to_disk(str(path / "saved"))
        labelled = datasets.Dataset.from_dict(
            {"text": ["x", "y"], "label": [1, 0]},
            features=datasets.Features(
                {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "是"])}
            ),
        )
        labelled.to_parquet(path / "classes.parquet")
        labelled.save_to_disk(str(path / "classes"))
    (path / "b.arrow").write_bytes(next((path / "saved").glob("*.arrow")).read_bytes())
    return path


@pytest.fixture
def encoder(plain_tokenizer: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(plain_tokenizer, get_template("default"), 64, task="x")


@pytest.mark.parametrize("name", ["a.jsonl", "named/train.parquet"])
def test_a_stream_gives_every_row_once_per_pass_in_a_new_order_and_any_row_again(
    folder: Path, encoder: Encoder, name: str
) -> None:
    def stream() -> StreamRows:
        return StreamRows(Source(str(folder / name), task="x"), encoder, 10, 3, held_out=5, skip_bad_rows=False)

    rows = stream()
    seen = [tuple(rows[i].input_ids) for i in range(3 * 42)]
    passes = [seen[i : i + 42] for i in (0, 42, 84)]
    assert len(set(passes[0])) == 42
    assert all(set(one) == set(passes[0]) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    resumed = stream()
    assert [tuple(resumed[i].input_ids) for i in range(70, 100)] == seen[70:100]
    assert tuple(resumed[3].input_ids) == seen[3]


def test_streams_hold_out_the_first_rows_and_refuse_a_share(folder: Path, encoder: Encoder) -> None:
    entries = task_entries({"x": {"file": str(folder / "a.jsonl")}})
    rows = load_streams(entries, Opener(encoder), SplitRules(4), [], 10, 0)
    assert [row.output for row in rows.eval["x"]] == ["a 0", "a 1", "a 2", "a 3"]
    held = {tuple(row.input_ids) for row in rows.eval_tokens["x"]}
    assert not held & {tuple(rows.train_tokens["x"][i].input_ids) for i in range(43)}
    with pytest.raises(InputError, match="`val_size` must be a number of rows, or 0"):
        load_streams(entries, Opener(encoder), SplitRules(0.1), [], 10, 0)


def test_a_stream_says_how_it_is_read_and_reads_any_layout(plain_tokenizer, tmp_path):
    (tmp_path / "a.csv").write_text("one,1,x\ntwo,2,y\n", encoding="utf-8")
    columns = {"prompt": 1, "response": 2}
    entries = task_entries({"qa": {"file": str(tmp_path / "a.csv"), "header": False, "columns": columns}})
    rows = load_streams(entries, Opener(Encoder(plain_tokenizer, get_template("default"), 32)), SplitRules(1), [], 4, 0)
    assert rows.notes == [f"Task qa: `{tmp_path / 'a.csv'}` is read as alpaca; not read: `3`."]
    assert rows.eval["qa"][0].instruction == "one"
    assert "two" in plain_tokenizer.decode(rows.train_tokens["qa"][0].input_ids)


def test_a_stream_gives_its_first_rows_and_measures_few(plain_tokenizer, tmp_path):
    for name, count in (("a", 9), ("dev", 7)):
        rows = [{"instruction": f"{name}{i}", "output": "b"} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files = {"file": str(tmp_path / "a.jsonl"), "eval_file": str(tmp_path / "dev.jsonl"), "num_samples": 3}
    opener = Opener(Encoder(plain_tokenizer, get_template("default"), 32))
    rows = load_streams(task_entries({"qa": files}), opener, SplitRules(most_held_out=2), [], 4, 0)
    assert len(rows.eval["qa"]) == len(rows.eval_tokens["qa"]) == 2
    seen = {plain_tokenizer.decode(rows.train_tokens["qa"][i].input_ids).split("a")[1][0] for i in range(12)}
    assert rows.train_tokens["qa"].length == 3
    assert len(seen) <= 3
    assert "the first 3 rows of the stream are taken" in rows.notes[1]
