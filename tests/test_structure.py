"""The size limits and the tree that a newcomer relies on."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    p for folder in ("mtl_opt", "experiments", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_have_at_most_300_lines_and_functions_at_most_40(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines below its docstring"


def test_every_package_says_what_it_is():
    for package in sorted((ROOT / "mtl_opt").rglob("__init__.py")):
        doc = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8")))
        assert doc, f"{package} has no docstring"
        assert "TODO" not in doc


def test_readme_names_every_box():
    tree = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "mtl_opt").iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"  {path.name}/" in tree
