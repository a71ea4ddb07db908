# `make run` and `make test` need nothing beforehand but Python (3.11 to 3.13), git and make.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.9
# bytecode is kept even where the environment says not to: that of the tests takes each of the two seconds to make
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 python -m pytest --numprocesses 2 --dist loadfile
export PATH := $(abspath $(VENV))/bin:$(PATH)
# nothing phones home
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help setup repository run flow deploy worker undeploy test lint format docs ui sync zoo import-study promote rollback clean lock \
  test-fast test-chaos test-rounding test-weekly

help: ## what each command does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# A stamp is a copy of the lock that is installed: one that is newer but the same (another checkout, a container) needs nothing.
$(VENV)/main.stamp: requirements/main.txt
	@cmp --silent $< $@ || { { test -x $(UV) || { \
	    echo "setting up $(VENV) (some 5 GB with torch's CUDA libraries; once)"; \
	    $(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"error: Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; try make PYTHON=python3.11 …")' \
	    && $(PYTHON) -m venv $(VENV) && $(VENV)/bin/python -m pip install --quiet uv==$(UV_VERSION); }; } \
	  && $(UV) pip install --quiet --require-hashes --compile-bytecode --python $(VENV)/bin/python -r $< \
	  && cp $< $@; }

# The project itself, in place: its command, and its packages in whatever folder Python starts. Nothing is fetched.
$(VENV)/bin/gcrl: | $(VENV)/main.stamp
	@$(UV) pip install --quiet --no-deps --editable . --python $(VENV)/bin/python

INSTALLED := $(VENV)/main.stamp $(VENV)/bin/gcrl

$(VENV)/dev.stamp: requirements/dev.txt $(INSTALLED)
	@cmp --silent $< $@ || { $(UV) pip install --quiet --require-hashes --compile-bytecode --python $(VENV)/bin/python -r $< && cp $< $@; }

setup: $(VENV)/dev.stamp ## everything for working on the code

# DVC wants a git repository: told before anything is installed
repository:
	@test -e .git || git rev-parse --git-dir >/dev/null 2>&1 || grep -qs 'no_scm = true' .dvc/config .dvc/config.local || { \
	  echo "error: this folder is no git repository, as a downloaded archive is none, and DVC works in one. Clone the project, or make it one: git init && git add --all && git commit -m 'As downloaded'" >&2; exit 2; }

run: repository $(INSTALLED) ## reproduce the pipeline: make run, or make run PRESET=name (see presets/)
	@if [ -n "$(PRESET)" ]; then python -m pipelines preset $(PRESET); fi
	@python -m pipelines repro
	@cat outputs/compare/comparison.md

flow: repository $(INSTALLED) ## a Prefect flow (docs/flows.md): make flow, or make flow FLOW=sweep ARGS="seeds=[1,2]"
	@python -m pipelines flow $(or $(FLOW),reproduce) $(ARGS)

test: $(VENV)/dev.stamp ## all tests but those of faults and the weekly ones
	@$(PYTEST) -m "not chaos"

test-fast: $(VENV)/dev.stamp ## those that start neither servers nor the real commands
	@$(PYTEST) -m "not (e2e or chaos or server)"

test-chaos: $(VENV)/dev.stamp ## those that kill processes, fill disks and cut connections
	@$(PYTEST) -m chaos

test-rounding: $(VENV)/dev.stamp ## those that train a model, on the sums of a processor without vector instructions
	@ATEN_CPU_CAPABILITY=default $(PYTEST) -m trains

test-weekly: $(VENV)/dev.stamp ## those that `make test` leaves out, such as every pair of objectives
	@$(PYTEST) --weekly -m weekly

lint: $(VENV)/dev.stamp ## ruff, mypy, and the linters of the Docker files
	@ruff check .
	@ruff format --check .
	@mypy
	@hadolint Dockerfile
	@check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml compose.gpu.yaml

format: $(VENV)/dev.stamp ## let ruff mend what it can
	@ruff check --fix .
	@ruff format .

$(VENV)/docs.stamp: requirements/docs.txt $(INSTALLED)
	@cmp --silent $< $@ || { $(UV) pip install --quiet --require-hashes --python $(VENV)/bin/python -r $< && cp $< $@; }

docs: $(VENV)/docs.stamp ## the documentation as a site with an API reference, in site/
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict

deploy: $(INSTALLED) ## schedules: a Prefect server on this machine, and what prefect.yaml says (PORT, DATABASE, ACTIVE, TIMEZONE)
	@python -m pipelines deploy

worker: $(INSTALLED) ## run what is due, until Ctrl-C
	@exec python -m pipelines worker $(ARGS)

undeploy: $(INSTALLED) ## stop the server that `make deploy` started
	@python -m pipelines undeploy

ui: $(INSTALLED) ## MLflow over this folder's runs, on http://127.0.0.1:5000
	@python -m pipelines tracking ui $${PORT:-5000}
	@set -a; . mlflow/server.env; mlflow ui --port $${PORT:-5000}

sync: $(INSTALLED) ## send what an unreachable MLflow server has missed
	@python -m pipelines tracking sync

zoo: $(INSTALLED) ## every method on equal terms, in one table and figure: make zoo, or make zoo PRESET=name DIR=study-mine
	@if [ -n "$(PRESET)" ]; then python -m pipelines preset $(PRESET); fi
	@python -m pipelines.experiments plan studies/zoo.yaml $(or $(DIR),study-zoo)
	@python -m pipelines.experiments run $(or $(DIR),study-zoo) --until ood --jobs $(or $(JOBS),2); code=$$?; \
	  test $$code = 130 || python -m pipelines.experiments methods $(or $(DIR),study-zoo) && exit $$code

import-study: $(INSTALLED) ## bring a study that ran elsewhere into MLflow: make import-study DIR=… (docs/remote-training.md)
	@test -n "$(DIR)" || { echo "usage: make import-study DIR=… (a study's folder, or one with study.tar.000 …)" >&2; exit 2; }
	@python -m pipelines.experiments import "$(DIR)" $(if $(REGISTER),--register)

promote: $(INSTALLED) ## make a model version champion by hand: make promote VERSION=3 (or VERSION=challenger)
	@test -n "$(VERSION)" || { echo "usage: make promote VERSION=3 (or VERSION=challenger)" >&2; exit 2; }
	@python -m pipelines tracking promote "$(VERSION)" $(if $(FORCE),--force)

rollback: $(INSTALLED) ## make the champion before the present one champion again
	@python -m pipelines tracking rollback

clean: ## remove what runs have written, but keep DVC's cache, MLflow's store and the environment
	rm -rf outputs data/prepared data/validation data/validation-failed data/quarantine.csv .scratch \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis site
	find components pipelines tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

lock: $(VENV)/dev.stamp ## resolve requirements/ anew from pyproject.toml
	@compile="$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate"; \
	$$compile pyproject.toml --output-file requirements/main.txt && \
	$$compile pyproject.toml --group dev --constraint requirements/main.txt --output-file requirements/dev.txt && \
	$$compile pyproject.toml --group benchmarks --constraint requirements/dev.txt --output-file requirements/benchmarks.txt && \
	$$compile --group docs --constraint requirements/main.txt --output-file requirements/docs.txt && \
	$$compile --group serve --constraint requirements/main.txt --output-file requirements/serve.txt
