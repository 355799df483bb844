"""The benchmark of packing compares steps that compute the same gradient, and says what was measured."""

import json

import pytest

from benchmarks import packing
from benchmarks.sizes import SIZES

QUICK = ["--size", "tiny", "--repeats", "2", "--warmup", "1", "--tasks", "2", "--device", "cpu"]


@pytest.mark.slow
def test_json_holds_every_variant_and_the_target_where_it_applies(capsys):
    packing.main([*QUICK, "--spread", "1,4", "--json"])
    found = json.loads(capsys.readouterr().out)["results"]
    assert [one["spread"] for one in found] == [1, 4]
    for one in found:
        assert list(one["variants"]) == list(packing.VARIANTS)
        assert max(one["differences"].values()) < 1e-5
    assert found[0]["tokens"]["padded"] == found[0]["tokens"]["packed"] == found[0]["real_tokens"]
    assert found[1]["tokens"]["packed"] < found[1]["tokens"]["padded"]
    assert [len(one["targets"]) for one in found] == [0, 1]


def test_every_second_task_is_as_much_shorter_as_asked():
    rows = packing.ragged_rows(SIZES["tiny"], 4, 4)
    assert [{len(row.input_ids) for row in task} for task in rows] == [{8}, {2}, {8}, {2}]


@pytest.mark.slow
def test_the_table_names_what_was_measured(capsys):
    packing.main([*QUICK, "--spread", "8"])
    out = capsys.readouterr().out
    assert "tiny, lengths differ by 8: 80 tokens, 128 padded" in out
    assert "target packed_one_pass / padded_plain <= 0.8" in out


def test_variants_that_differ_are_an_error(monkeypatch):
    monkeypatch.setattr(packing, "TOLERANCE", -1.0)
    with pytest.raises(SystemExit, match="do not compute the same gradient"):
        packing.main([*QUICK, "--spread", "4"])
