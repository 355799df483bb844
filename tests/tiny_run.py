"""A tiny untrained Llama, three small tasks and the settings of a run of a second: what the tests of training share."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtl_opt.examples.tiny_llama import new_llama, train_tokenizer
from mtl_opt.training import train_config
from mtl_opt.training.config.run_config import TrainConfig

TASKS = ("qa", "摘要", "anger")


def rows_of(task: str, number: int) -> list[dict[str, str]]:
    """Make rows of very different lengths; `摘要` is Chinese throughout."""
    make = {
        "qa": lambda i: ("How much is this?", f"{i} and {i % 3}", f"{i + i % 3}"),
        "摘要": lambda i: ("请概括下面的投诉。", f"第{i}次扣款没有到账，客服不回复。" * (1 + i % 3), f"扣款{i % 2}"),
        "anger": lambda i: (f"Is the customer angry? Number {i}", "", "yes" if i % 2 else "no"),
    }[task]
    return [dict(zip(("instruction", "input", "output"), make(i), strict=True)) for i in range(number)]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write rows and return the path as a configuration holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def build_model(folder: Path, **tokenizer_changes: Any) -> str:
    """Save an untrained Llama of two layers with a tokenizer of some 300 tokens."""
    texts = [value for task in TASKS for row in rows_of(task, 8) for value in row.values()]
    tokenizer = train_tokenizer(texts, vocab_size=300)
    new_llama(tokenizer, hidden_size=32, num_layers=2, num_heads=4, seed=0).save_pretrained(folder)
    for name, value in tokenizer_changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return str(folder)


def build_data(folder: Path) -> dict[str, dict[str, str]]:
    """Write training and held-out files of the three tasks."""
    sizes = {"qa": 14, "摘要": 6, "anger": 3}
    return {
        task: {
            "file": write_jsonl(folder / f"{task}.jsonl", rows_of(task, size)),
            "eval_file": write_jsonl(folder / f"{task}.eval.jsonl", rows_of(task, 3)),
        }
        for task, size in sizes.items()
    }


def write_config(path: Path, settings: Mapping[str, Any]) -> str:
    """Write a configuration file and return its path."""
    path.write_text(yaml.safe_dump(dict(settings), allow_unicode=True, sort_keys=False), encoding="utf-8")
    return str(path)


def config_of(settings: Mapping[str, Any], **changes: Any) -> TrainConfig:
    """Check settings with some of them changed."""
    return train_config({**settings, **changes})


def digest(folder: Path) -> dict[str, tuple[str, int]]:
    """Describe every file below a folder by content and time of change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """Read `trainer_log.jsonl`."""
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()]


def mostly_slow(values: Iterable[Any], fast: Iterable[Any]) -> list[Any]:
    """Mark the runs of all but some values as slow: each takes seconds, and together they are minutes."""
    kept = list(fast)
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]
