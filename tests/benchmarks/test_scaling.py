"""The benchmark of scaling fits what it measured."""

import json

import pytest

from benchmarks import scaling

QUICK = ["--size", "tiny", "--repeats", "1", "--warmup", "1", "--device", "cpu"]
QUICK += ["--tasks", "2,8", "--rank", "2,4", "--length", "4,16"]


def test_an_exponent_is_found_whatever_the_factor():
    assert scaling.exponent({x: 7.0 * x**1.5 for x in (3, 10, 200)}) == pytest.approx(1.5)
    assert scaling.exponent({1: 5.0, 100: 5.0}) == pytest.approx(0.0)


@pytest.mark.slow
def test_every_axis_has_its_points_and_exponents(capsys):
    scaling.main([*QUICK, "--json"])
    found = {one["axis"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert list(found) == list(scaling.AXES)
    assert [p["x"] for p in found["tasks"]["points"]] == [2, 8]
    low, high = (p["x"] for p in found["parameters"]["points"])
    assert high == 2 * low  # rank 4 against rank 2
    assert [p["x"] for p in found["length"]["points"]] == [4, 16]
    buffer = {axis: one["exponents"]["memory"]["buffer"] for axis, one in found.items()}
    assert buffer == {"tasks": pytest.approx(1), "parameters": pytest.approx(1), "length": pytest.approx(0)}
    assert found["length"]["exponents"]["memory"]["plain"] > 0.5
    assert abs(found["tasks"]["exponents"]["memory"]["plain"]) < 0.05
    for one in found.values():
        assert one["exponents"]["time"].keys() == set(scaling.VARIANTS)


@pytest.mark.slow
def test_the_table_shows_exponents(capsys):
    scaling.main([*QUICK, "--axes", "tasks"])
    out = capsys.readouterr().out
    assert out.count("exponent") == 1
    assert "one_pass" in out


@pytest.mark.parametrize("words", [["--tasks", "4"], ["--rank", "8,8"], ["--length", "1,2"]])
def test_what_gives_no_slope_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        scaling.arguments(words)
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err.splitlines()[-1]
