# Everything a person or a CI does with this repository. `make` alone explains.
# Needs: python3 (3.11 or later, with venv), make and git. Linux.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup up down status demo test unit check format docs lock bench bench-platform bench-gateway bench-queue bench-autoscale clean

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# The same uv that hosts use to build the environments of models; pinned with its hashes by the lock.
UV := .tools/bin/uv
PACKAGES := $(wildcard libs/*/penstock* services/*/penstock_* deploy/launcher/penstock_launcher) deploy/demo \
	tests/support tests/faults bench conftest.py
# Options of `penstock up`, such as ARGS='--simulate-gpus "RTX 4090=4"'; of pytest for test and unit; of benchmarks.
ARGS ?=
# Processes that run tests side by side, each with servers and a platform of its own. Tests mostly wait.
WORKERS ?= 3

help: ## Show this
	@echo "Penstock: a model from a git repository becomes a URL. The first steps:"
	@echo
	@echo "  make up      install what is missing and start the platform on this machine"
	@echo "  make demo    see all of it once: deploy a model, call it, see its logs and its cost, stop it"
	@echo "  make down    stop the platform; its data stays (in PENSTOCK_HOME, or a default by user)"
	@echo
	@echo "All targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "After 'make setup' the command line is at $(BIN)/penstock (try: $(BIN)/penstock --help)."

setup: $(INSTALLED) ## Install everything into .venv, exactly as locked; instant when nothing changed

$(INSTALLED): requirements.lock pyproject.toml deploy/install.sh
	@PYTHON="$(PYTHON)" deploy/install.sh
	@touch $@

up: setup ## Start the platform on this machine; ARGS passes options
	@$(BIN)/penstock up $(ARGS)

down: setup ## Stop everything that `make up` started
	@$(BIN)/penstock down $(ARGS)

status: setup ## Show what runs
	@$(BIN)/penstock status $(ARGS) || true

demo: setup ## Deploy a model from a git repository and call it; the last line is a summary in JSON
	@$(BIN)/python deploy/demo/demo.py

test: setup ## Run every test, with real servers and real processes
	$(BIN)/pytest -n $(WORKERS) --dist loadscope $(ARGS)

unit: setup ## Run the tests that need no server
	$(BIN)/pytest -m "not connected and not e2e and not faults" $(ARGS)

check: setup ## Lint, format, types, and who may import whom: under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports

format: setup ## Format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## Write docs/openapi.json and docs/asyncapi.json from the code
	$(BIN)/python -m penstock_api openapi > docs/openapi.json
	$(BIN)/python -m penstock_common.contracts.asyncapi > docs/asyncapi.json

lock: setup ## Resolve the dependencies anew into requirements.lock
	$(UV) lock --quiet
	$(UV) export --all-extras --all-groups --no-emit-project --no-header --no-annotate \
		--quiet --output-file requirements.lock

bench: setup ## Run every benchmark there is: each folder of bench/ that can be run
	@for main in bench/*/__main__.py; do echo "== $${main%/*}"; $(BIN)/python "$${main%/*}"; done

bench-platform: setup ## Measure start, deployment and delivery; writes bench/results/platform.json
	@$(BIN)/python bench/platform

bench-gateway: setup ## Measure the gateway beside its peers (half an hour); writes bench/results/gateway.json
	@$(BIN)/python bench/gateway $(ARGS)

bench-queue: setup ## Measure the waits behind it and its peers (13 minutes); writes bench/results/queue.json
	@$(BIN)/python bench/queue $(ARGS)

bench-autoscale: setup ## Simulate the autoscaler beside Knative's on a trace; writes bench/results/autoscale.json
	@$(BIN)/python bench/autoscale $(ARGS)

clean: ## Remove what make installed and every cache; data directories stay
	rm -rf .venv .tools bench/.cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} + ; find . -maxdepth 2 -name '*.egg-info' -exec rm -rf {} +
