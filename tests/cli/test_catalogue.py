"""`mtl-opt list` and `env`: registries as tables and JSON, versions."""

import json

from mtl_opt import cli
from mtl_opt.combiners import COMBINERS
from mtl_opt.data import MIXINGS


def test_list_combiners_as_text_has_one_line_per_name(capsys):
    assert cli.main(["list", "combiners"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *COMBINERS]


def test_list_combiners_as_json_is_an_object_keyed_by_name(capsys):
    assert cli.main(["list", "combiners", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert list(table) == list(COMBINERS)
    assert table["pcgrad"]["class"] == "PCGrad"
    assert table["pcgrad"]["requires"] == "gramian"
    assert all(entry["paper"] for entry in table.values())


def test_env_names_every_version_a_bug_report_needs(capsys):
    assert cli.main(["env"]) == 0
    out = capsys.readouterr().out
    for name in ("mtl_opt", "python", "platform", "torch", "transformers", "peft", "gpu"):
        assert f"\n{name} " in f"\n{out}"


def test_list_mixing_names_every_mixing_with_its_arguments(capsys):
    assert cli.main(["list", "mixing"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", *MIXINGS]
    assert cli.main(["list", "mixing", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["temperature"]["arguments"] == ["temperature", "cap", "scale"]
