# Two commands on a fresh machine: `make demo` and `make test`. Both build .venv/ first; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all check format docs bench pictures weights clean
.DEFAULT_GOAL := test

# torch goes first: where a CPU build is offered, the pinned version takes it and nothing later pulls another.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/anisora demo --out demo

# two processes, a file of tests to each: fixtures of a module are made once
test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest

check: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/overhead.py --json
	$(BIN)/python benchmarks/bundled_model.py --first-seed 9000 --clips 24 --json

# The pictures of README.md, made by the bundled model from guides that the synthetic corpus draws.
pictures: $(VENV)/.installed
	$(BIN)/python docs/make_pictures.py

# The bundled weights once more, from nothing: many hours on a CPU. Stopped at any time, it goes on when run again.
weights: $(VENV)/.installed
	$(BIN)/anisora train configs/bundled.yaml
	$(BIN)/anisora train configs/bundled-more.yaml start_from=runs/bundled/export
	$(BIN)/anisora train configs/bundled-judged.yaml

clean:
	rm -rf $(VENV) build dist site demo .pytest_cache .ruff_cache .mypy_cache
