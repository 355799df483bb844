"""The size limits and the tree that a newcomer relies on."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    p for folder in ("mtl_opt", "experiments", "benchmarks", "docs") for p in (ROOT / folder).rglob("*.py")
)


EXPORTED = {
    ast.literal_eval(name)
    for package in (ROOT / "mtl_opt").rglob("__init__.py")
    for node in ast.parse(package.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    for name in map(ast.unparse, node.value.elts)
}
SECTION = re.compile(r"^(Args|Returns|Yields|Raises):$", re.MULTILINE)
GROUND = {"linalg.py"}  # a module of its own with public functions


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_have_at_most_40_lines(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines below its docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_docstring_sections_stand_where_a_package_exports_the_name(path):
    if path.name in GROUND or not path.is_relative_to(ROOT / "mtl_opt"):
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            sections = set(SECTION.findall(ast.get_docstring(node) or ""))
            if node.name in EXPORTED:
                takes = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
                assert not takes or "Args" in sections, f"`{node.name}` is exported and does not say what it takes"
            else:
                assert not sections, f"`{node.name}` is exported by no package: one line is enough"


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
