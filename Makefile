# Everything a developer or a build machine runs. The environment is .venv, made on first use and
# brought up to date when the requirements change; see docs/development.md.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
UV_VERSION := 0.13.8
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make requirements" pyproject.toml --extra server --group build

export PYTHON
# servers and commands that tests start are up in half the time when they are compiled
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: runtime ## provision devices against a server of its own (ARGS="--devices 20")
	@$(BIN)/fleetgate demo $(ARGS)

.PHONY: test
test: environment debian-packages style ## everything: Debian packages, lint, types, all tests (ARGS="-k name")
	@$(BIN)/mypy >.mypy-said 2>&1 & types=$$!; tests=0; \
	$(BIN)/pytest --numprocesses=4 --dist=loadfile $(ARGS) || tests=$$?; \
	wait $$types || { cat .mypy-said; rm .mypy-said; exit 1; }; cat .mypy-said; rm .mypy-said; exit $$tests

.PHONY: check
check: environment lint ## the fast part: lint, types, architecture and documentation tests
	$(BIN)/pytest tests/test_architecture.py tests/test_docs.py

.PHONY: bench
bench: environment debian-packages ## measure against the references of the design (ARGS="--help")
	@$(BIN)/python -m bench $(ARGS)

.PHONY: requirements
requirements: environment ## recompile both requirements files (ARGS="--upgrade" for newer versions)
	@[[ "$$($(BIN)/uv --version 2>&1)" == "uv $(UV_VERSION)"* ]] || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(COMPILE) --group test --output-file requirements-test.txt $(ARGS)
	$(COMPILE) --group demo --constraint requirements-test.txt --output-file requirements.txt $(ARGS)

.PHONY: clean
clean: ## remove the environment, caches and build results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find src tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# --- steps of the targets above ---------------------------------------------------------------

.PHONY: runtime
runtime:
	@tools/environment.sh runtime

.PHONY: environment
environment:
	@tools/environment.sh test

.PHONY: debian-packages
debian-packages:
	@tools/debian-packages.sh

.PHONY: style
style: environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: lint
lint: style
	$(BIN)/mypy
