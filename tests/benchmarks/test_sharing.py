"""The benchmark of sharing measures every name beside plain LoRA with as many active parameters."""

import json

import pytest

from benchmarks import sharing, sharing_steps
from benchmarks.timer import Summary
from mtl_opt.models import SHARING

QUICK = ["--size", "tiny", "--repeats", "2", "--warmup", "1", "--tasks", "2", "--device", "cpu", "--threads", "1"]


SOME = ["hard", "selective", "mtl_lora", "experts", "sparse_experts"]


def test_the_registry_says_what_is_measured():
    settings = sharing.arguments([])
    assert settings.sharing == list(SHARING)
    assert settings.size == ["large", "small"]


@pytest.mark.slow
def test_json_holds_every_name_beside_as_many_active_parameters(capsys):
    sharing.main([*QUICK, "--sharing", ",".join(SOME), "--json"])
    found = json.loads(capsys.readouterr().out)["results"]
    assert [one["step"] for one in found] == ["plain", "one_pass"]
    for one in found:
        assert list(one["names"]) == SOME
        assert one["targets"] == []  # nothing but overhead
        for name, measured in one["names"].items():
            assert measured["ratio_to_unrouted"]["median"] > 0
            if name != "sparse_experts":  # of which it counts all
                assert abs(measured["active_parameters"] / measured["unrouted_parameters"] - 1) < 0.2, name


@pytest.mark.slow
def test_the_table_names_what_was_measured_and_the_target(capsys, monkeypatch):
    monkeypatch.setattr(sharing, "judged", lambda _head, found: [
        {"name": "hydra / unrouted", "measured": found["names"]["hydra"]["ratio_to_unrouted"].median, "at_most": 1e9,
         "met": True},
    ])  # fmt: skip
    sharing.main([*QUICK, "--sharing", "hydra", "--step", "plain"])
    out = capsys.readouterr().out
    assert "tiny, equal rows, plain: 128 tokens a step" in out
    assert "x lora 8 to 24" in out
    assert "target hydra / unrouted <= 1000000000.0" in out


def test_only_plain_steps_with_equal_rows_are_judged():
    found = {"names": {"hydra": {"ratio_to_unrouted": Summary(1.1, 1.2, 1.3)}}}
    head = {"size": "small", "rows": "equal", "step": "plain"}
    assert sharing.judged(head, found) == [
        {"name": "hydra / unrouted", "measured": 1.2, "at_most": sharing.LIMIT, "met": False}
    ]
    for change in ({"size": "tiny"}, {"rows": "ragged"}, {"step": "one_pass"}):
        assert sharing.judged(head | change, found) == []


def test_engines_that_differ_are_an_error(monkeypatch):
    monkeypatch.setattr(sharing_steps.Workload, "tolerance", -1.0)
    with pytest.raises(SystemExit, match="do not compute the same gradient"):
        sharing.main([*QUICK, "--sharing", "hydra", "--step", "plain"])
