"""Every folder of experiments is complete: a command, a README with it, and a raw result or the reason for none."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "experiments").glob("*/__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_experiment_has_its_command_and_a_readme_that_says_it(folder):
    assert (folder / "__main__.py").exists()
    assert (folder / "measure.py").exists()
    assert f"python -m experiments.{folder.name}" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_raw_results_are_those_of_their_folder_and_named_in_its_readme(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.glob("result*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["experiment"] == folder.name
        assert found["quick"] == (path.name == "result_quick.json")
        assert f"`{path.name}`" in readme
    assert "Raw result:" in readme
