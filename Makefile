# `make demo` and `make test` need nothing but Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two workers of one thread each: on few cores torch is slower with more, and a worker takes up to 2 GB of memory.
WORKERS ?= 2
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test check lint format clean

help:  ## Show what there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@# torch and torchvision have to match; this pair is tried first, then whatever pip finds for this machine.
	$(BIN)/python -m pip install --quiet "torch==2.14.1" "torchvision==0.29.1" || $(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	@touch $(STAMP)

install: $(STAMP)  ## Create .venv and install nervcodec with all extras

demo: $(STAMP)  ## Encode, decode, evaluate and search a real clip, offline, on a CPU
	HF_HUB_OFFLINE=1 $(BIN)/python examples/demo.py

test: $(STAMP) lint  ## Run all tests
	$(PYTEST)

check: $(STAMP) lint  ## Run the tests that take no fit to speak of
	$(PYTEST) -m "not slow"

lint: $(STAMP)  ## Check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	@# mypy knows nothing of package-dir: it is shown the packages as they are installed.
	rm -rf build/typed && mkdir -p build/typed
	cp -r nervcodec build/typed/ && cp -r cli formats build/typed/nervcodec/
	cd build/typed && $(abspath $(BIN))/python -m mypy --config-file ../../pyproject.toml -p nervcodec

format: $(STAMP)  ## Bring the code into shape
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:  ## Remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache demo-out
