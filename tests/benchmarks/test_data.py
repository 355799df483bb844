"""The benchmark of data at a small size: it runs, and its figures are those of what it says."""

import json

import pytest
import torch

from benchmarks import data
from mtl_opt.examples.tiny_llama import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([row.user_text for row in data.make_rows(200)], 400)


@pytest.mark.slow
def test_tokenising_is_measured_beside_the_tokenizer_alone(tokenizer):
    found = data.tokenizing(data.make_rows(100), tokenizer)
    assert set(found["seconds"]) == {"rows", "tokenizer", "backend"}
    low, median, high = found["speed_of_tokenizer"]
    assert 0 < low <= median <= high


def test_tasks_of_very_different_sizes_are_written(tokenizer, tmp_path):
    data.write_tasks(tmp_path, 2000, 5, tokenizer)
    sizes = [len((tmp_path / f"task{i}.jsonl").read_text().splitlines()) for i in range(5)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 4 * sizes[4]


def test_a_second_start_reads_what_the_first_one_cached(tokenizer, tmp_path):
    config = data.write_tasks(tmp_path, 300, 3, tokenizer)
    first = data.start(str(config))
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    second = data.start(str(config))
    assert cached
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")} == cached
    assert first["rows"] == second["rows"] > 250


@pytest.mark.slow
def test_drawing_takes_a_small_part_of_a_step():
    threads = torch.get_num_threads()
    found = data.sampling()
    torch.set_num_threads(threads)
    assert 0 < found["largest_share"] < 0.1
    json.dumps(found)
