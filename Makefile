# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVICES := hospital buffer tool modelapi dashboard embedded
RUN_REQUIREMENTS := $(SERVICES:%=%/requirements.txt)

.DEFAULT_GOAL := help
.PHONY: help run replay test check clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: $(VENV)/run ## run the whole pipeline without Docker; Ctrl-C ends it
	@$(BIN)/python -m embedded run

replay: $(VENV)/run ## the same once through at full speed, into a fresh database
	@$(BIN)/python -m embedded replay

test: $(VENV)/test ## run all tests
	@$(BIN)/python -m pytest

check: $(VENV)/test ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy buffer embedded hospital modelapi tool

clean: ## remove the environment and all that was derived or stored
	rm -rf $(VENV) var

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: $(VENV)/bin/python $(RUN_REQUIREMENTS)
	@echo "installing what the pipeline needs into $(VENV) (once, about a minute)"
	@$(BIN)/pip install --quiet --disable-pip-version-check $(RUN_REQUIREMENTS:%=-r %)
	@touch $@

$(VENV)/test: $(VENV)/run requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
