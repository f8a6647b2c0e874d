# The two commands of a new user: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help install demo demo-clean test test-fast lint format pretrain-base ui

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: .venv/.installed  ## make .venv and install requirements.txt (2.5 GB; 1 to 5 minutes)

.venv/.installed: requirements.txt cluster/install.sh
	@bash cluster/install.sh $(PYTHON) .venv
	@touch $@

demo: install  ## the whole chain on the embedded quick-start data, against a local Ray
	@bash cluster/local_demo.sh

demo-clean:  ## remove what `make demo` made
	@bash cluster/local_demo.sh --stop
	rm -rf runs/quickstart

ui:  ## the MLflow page of the demo's runs, on http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri sqlite:///runs/quickstart/mlflow/mlflow.db --port 5000

test: install lint  ## lint, types and the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/regression --numprocesses 2 --dist loadfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integration tests/chaos

test-fast: install  ## unit tests only
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/regression -m "not slow" --numprocesses 2 --dist loadfile

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## ruff format, in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pretrain-base: install  ## train the quick-start base again (several hours on 2 cores)
	$(BIN)/python pipelines/pretrain_quickstart_base.py --output assets/quickstart_base --word-steps 0
	$(BIN)/python pipelines/pretrain_quickstart_base.py --output assets/quickstart_base --clips 2500 --lr 5e-4
