# `make run` and `make test` need nothing beforehand but Python (3.11 to 3.13), git and make.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.9
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# nothing phones home
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help setup run flow test lint format ui sync clean lock

help: ## what each command does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/main.stamp: requirements/main.txt
	@test -x $(UV) || { echo "setting up $(VENV) (some 5 GB with torch's CUDA libraries; once)"; \
	  $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"error: Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.11 …")' \
	  && $(PYTHON) -m venv $(VENV) && $(VENV)/bin/python -m pip install --quiet uv==$(UV_VERSION); }
	@$(UV) pip install --quiet --require-hashes --compile-bytecode --python $(VENV)/bin/python -r $<
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/main.stamp
	@$(UV) pip install --quiet --require-hashes --python $(VENV)/bin/python -r $<
	@touch $@

setup: $(VENV)/dev.stamp ## everything for working on the code

run: $(VENV)/main.stamp ## reproduce the pipeline: make run, or make run PRESET=name (see presets/)
	@if [ -n "$(PRESET)" ]; then python -m pipelines.presets $(PRESET); fi
	@python -m pipelines.stages check
	@dvc --quiet --wait-for-lock repro
	@cat outputs/compare/comparison.md

flow: $(VENV)/main.stamp ## the same by Prefect: independent stages side by side, progress and a table of what happened
	@python -m pipelines.flows.reproduce

test: $(VENV)/dev.stamp ## all tests
	@python -m pytest

lint: $(VENV)/dev.stamp ## ruff and mypy
	@ruff check .
	@ruff format --check .
	@mypy

format: $(VENV)/dev.stamp ## let ruff mend what it can
	@ruff check --fix .
	@ruff format .

ui: $(VENV)/main.stamp ## MLflow over this folder's runs, on http://127.0.0.1:5000
	@python -m pipelines.tracking sync
	@set -a; . mlflow/server.env; mlflow ui --port $${PORT:-5000}

sync: $(VENV)/main.stamp ## send what an unreachable MLflow server has missed
	@python -m pipelines.tracking sync

clean: ## remove what runs have written, but keep DVC's cache, MLflow's store and the environment
	rm -rf outputs data/prepared data/validation data/validation-failed data/quarantine.csv .scratch \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find components pipelines tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

lock: $(VENV)/dev.stamp ## resolve requirements/ anew from pyproject.toml
	@compile="$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate"; \
	$$compile pyproject.toml --output-file requirements/main.txt && \
	$$compile pyproject.toml --group dev --constraint requirements/main.txt --output-file requirements/dev.txt && \
	$$compile pyproject.toml --group benchmarks --constraint requirements/dev.txt --output-file requirements/benchmarks.txt
