"""Columnar files, folders and named data sets: real `datasets`, local files."""

import json
from pathlib import Path

import datasets
import pytest

from mtl_opt.data.read.files import stop_at_first
from mtl_opt.data.read.hub import without_progress_bars
from mtl_opt.data.read.sources import Source, iterate, read_rows
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
