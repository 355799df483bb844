"""Columnar files, folders, data sets by name, and streams: real `datasets`, local files."""

import json
from pathlib import Path

import datasets
import pytest
from transformers import PreTrainedTokenizerBase

from mtl_opt.data.read.files import stop_at_first
from mtl_opt.data.read.hub import without_progress_bars
from mtl_opt.data.read.sources import Source, iterate, read_rows
from mtl_opt.data.registry import task_entries
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


@pytest.mark.parametrize("name", ["a.jsonl", "named/train.parquet", "b.arrow", "saved", "named"])
def test_every_kind_of_file_and_folder_gives_the_same_rows(folder: Path, name: str) -> None:
    rows = read_rows(folder / name)
    assert [row.output for row in rows] == [row["output"] for row in ROWS]
    assert rows[2].place.endswith(("line 3", "row 3"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_by_name_is_read_whole_or_as_a_stream(folder: Path, streaming: bool) -> None:
    rows = list(iterate(Source(str(folder / "named"), hub=True, streaming=streaming), stop_at_first))
    assert [row.user_text for row in rows] == [row["instruction"] for row in ROWS]


def test_classes_are_learnt_by_name(folder: Path) -> None:
    assert [row.output for row in read_rows(folder / "classes")] == ["是", "no"]


@pytest.mark.parametrize("name", ["nothing.parquet", "no/such/set"])
def test_a_data_set_that_is_not_there_is_one_sentence(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"does not exist|cannot be loaded") as caught:
        list(iterate(Source(str(folder / name), hub=True), stop_at_first))
    assert "\n" not in str(caught.value)


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        read_rows(tmp_path / "a.parquet")


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="holds no data file"):
        read_rows(tmp_path)


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
    rows = load_streams(entries, Opener(encoder), 4, [], 10, 0)
    assert [row.output for row in rows.eval["x"]] == ["a 0", "a 1", "a 2", "a 3"]
    held = {tuple(row.input_ids) for row in rows.eval_tokens["x"]}
    assert not held & {tuple(rows.train_tokens["x"][i].input_ids) for i in range(43)}
    with pytest.raises(InputError, match="`val_size` must be a number of rows, or 0"):
        load_streams(entries, Opener(encoder), 0.1, [], 10, 0)
