"""LLaMA-Factory registries and entries under `tasks`: what is read, and what is refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_opt.data.read.sources import read_rows
from mtl_opt.data.registry import Entry, registry_entries, task_entries
from mtl_opt.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "llamafactory_demo"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Entry]:
    def read_one(entry: dict[str, Any], name: str = "a") -> Entry:
        (tmp_path / "dataset_info.json").write_text(json.dumps({name: entry}, ensure_ascii=False), encoding="utf-8")
        return registry_entries(str(tmp_path), [name])[0]

    return read_one


def test_every_field_of_an_entry_is_read(read: Callable[..., Entry], tmp_path: Path) -> None:
    entry = read(
        {
            "file_name": "问答.jsonl", "formatting": "sharegpt", "columns": {"messages": "talk"}, "num_samples": 5,
            "tags": {"role_tag": "who"}, "task": "qa", "weight": "2", "ratio": 0.25, "role": "auxiliary", "group": "g",
            "template": "chatml", "metrics": ["f1"], "eval_file": "dev.jsonl", "instruction": "Answer.",
            "file_sha1": "0", "ranking": False,
        }
    )  # fmt: skip
    source, settings = entry.train, entry.train.settings
    assert source.path == str(tmp_path / "问答.jsonl")
    assert (source.task, source.strict, source.num_rows) == ("qa", False, 5)
    assert (source.spec.formatting, dict(source.spec.columns)) == ("sharegpt", {"messages": "talk"})
    assert (settings.weight, settings.ratio, settings.role, settings.group) == (2.0, 0.25, "auxiliary", "g")
    assert (settings.template, settings.metrics, settings.instruction) == ("chatml", ("f1",), "Answer.")
    assert entry.eval is not None
    assert (entry.eval.path, entry.eval.num_rows) == (str(tmp_path / "dev.jsonl"), None)


def test_a_hub_entry_keeps_its_name_subset_split_and_folder(read: Callable[..., Entry]) -> None:
    source = read({"hf_hub_url": "org/set", "ms_hub_url": "x/y", "subset": "en", "split": "full", "folder": "f"}).train
    assert (source.path, source.hub, source.subset, source.split, source.folder) == ("org/set", True, "en", "full", "f")
    assert source.task == "a"


def test_online_takes_names_as_they_are() -> None:
    (entry,) = registry_entries("ONLINE", ["org/set"])
    assert (entry.train.path, entry.train.hub, entry.train.task) == ("org/set", True, "set")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "hf_hub_url`; one of the two is needed"),
        ({"file_name": "a", "hf_hub_url": "b"}, "one of the two is needed"),
        ({"file_name": "a", "ranking": True}, "holds pairs to rank"),
        ({"file_name": "a", "columns": {"messages": "m", "images": "i"}}, "holds `images`"),
        ({"file_name": "a", "columns": {"messages": "m", "kto_tag": "i"}}, "holds `kto_tag`"),
        ({"ms_hub_url": "a/b"}, "rows from `ms_hub_url` cannot be had here"),
        ({"script_url": "a"}, "rows from `script_url` cannot be had here"),
        ({"file_name": "a", "wieght": 1}, "Did you mean `weight`"),
        ({"file_name": "a", "formatting": "alpacca"}, "Did you mean `alpaca`"),
        ({"file_name": "a", "template": "lama3"}, "Did you mean `llama3`"),
        ({"file_name": "a", "role": "side"}, "auxiliary, main"),
        ({"file_name": "a", "columns": {"promt": "x"}}, "Did you mean `prompt`"),
        ({"file_name": "a", "ratio": 1.5}, "at least 0 and at most 1"),
        ({"file_name": "a", "num_samples": 0}, "must be at least 1"),
        ({"file_name": "a", "task": "x/y"}, "bad task name"),
        ({"file_name": 3}, "must be a non-empty text"),
    ],
)
def test_a_bad_entry_is_refused(read: Callable[..., Entry], entry: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(entry)
    assert "a" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no"),
        (b"{", "no valid JSON"),
        (b"[]", "must hold an object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"a": {"file_name": "x"}, "a": {"file_name": "y"}}', "`a` stands twice"),
        (b'{"a": 3}', "entry `a` must be an object"),
        (b'{"b": {}}', "Unknown data set"),
    ],
)
def test_a_bad_registry_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "dataset_info.json").write_bytes(content)
    with pytest.raises(InputError, match=words):
        registry_entries(str(tmp_path), ["a"])


def test_under_tasks_the_key_names_the_task() -> None:
    (entry,) = task_entries({"情绪": {"file": "a.jsonl"}})
    assert (entry.train.task, entry.train.strict) == ("情绪", True)
    with pytest.raises(InputError, match="the key names the task"):
        task_entries({"a": {"file": "a.jsonl", "task": "b"}})


def test_a_task_may_name_no_metric() -> None:
    (entry,) = task_entries({"a": {"file": "a.jsonl", "metrics": []}})
    assert entry.train.settings.metrics == ()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/llamafactory_demo")
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("identity", 91), ("alpaca_en_demo", 999), ("alpaca_zh_demo", 1000), ("glaive_toolcall_en_demo", 300),
        ("glaive_toolcall_zh_demo", 300), ("wiki_demo", 30), ("c4_demo", 300),
    ],
)  # fmt: skip
def test_the_demo_of_llama_factory_loads_as_it_is(name: str, rows: int) -> None:
    (entry,) = registry_entries(str(SHARED), [name])
    found = read_rows(entry.train.path, entry.train.spec)
    assert len(found) == rows
    assert all(row.output.strip() for row in found)
