# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make

.PHONY: demo test test-all lint bench wheel-check clean

demo: $(STAMPS)/run
	$(BIN)/synque-select experiment --config digits

test: lint $(STAMPS)/dev
	$(BIN)/python -m pytest -m "not slow and not gpu and not vllm"
	$(MAKE) wheel-check

test-all: lint $(STAMPS)/dev
	$(BIN)/python -m pytest -m "not vllm"
	$(MAKE) wheel-check

lint: $(STAMPS)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMPS)/dev
	$(BIN)/python -m tests.benchmarks.run --json benchmarks.json

wheel-check: $(STAMPS)/dev
	bash tests/wheel_check.sh $(BIN)/python

$(STAMPS)/venv:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

$(STAMPS)/dev: $(STAMPS)/run
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf build dist *.egg-info $(STAMPS)
