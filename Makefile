# make run and make test do all their own set-up; they need Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
EXTRAS = jax,keras,mlx,seglearn,transformers
READY_EXTRAS = $(VENV)/.ready-extras

.PHONY: help run test test-slow test-extras lint install reproduce benchmark clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

run: $(READY)  ## the lesson on 5,000 bundled digits: federated beside isolated clients, then a table
	$(BIN)/fedexp -m strategy=fedavg,local_only

test: $(READY)  ## the quick tests, on two processes
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(READY)  ## all tests
	$(BIN)/pytest -m ''

test-extras: $(READY_EXTRAS)  ## the tests of what optional extras bring, such as JAX
	$(BIN)/pytest -m '' tests/extras

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reproduce: $(READY)  ## the lesson's published figures on all of MNIST (ROOT=folder of MNIST)
	$(BIN)/fedexp reproduce lesson $(if $(ROOT),dataset.root=$(ROOT))

benchmark: $(READY)  ## time the backends against a plain PyTorch loop (ROOT=folder of MNIST)
	$(BIN)/python scripts/benchmark.py $(if $(ROOT),dataset.root=$(ROOT))

install: $(READY)  ## the virtual environment in .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "fedexp needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): PyTorch is large, this takes some minutes the first time."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

$(READY_EXTRAS): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,$(EXTRAS)]'
	@touch $(READY_EXTRAS)

clean:  ## remove the virtual environment
	rm -rf $(VENV)
