# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVICES := hospital gateway buffer tool modelapi dashboard embedded
RUN_REQUIREMENTS := $(SERVICES:%=%/requirements.txt)

.DEFAULT_GOAL := help
.PHONY: help run live replay status import train evaluate token chaos bench test check audit clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: $(VENV)/run ## run the whole pipeline without Docker; Ctrl-C ends it
	@$(BIN)/python -m embedded run

live: $(VENV)/run ## the same with a live ward in front: HL7 on port 2575, FHIR and JSON on 8080
	@$(BIN)/python -m embedded live

replay: $(VENV)/run ## the same once through at full speed, into a fresh database
	@$(BIN)/python -m embedded replay

status: ## the running pipeline's figures, of compose or make run: WATCH=1 goes on
	@DASHBOARD_URL=$${DASHBOARD_URL:-http://127.0.0.1:$${PORT:-$${FRONT_PORT:-5000}}} \
		$(or $(wildcard $(BIN)/python),$(PYTHON)) -m dashboard.terminal $(if $(WATCH),--watch)

import: $(VENV)/train ## a public data set as the pipeline's CSVs: FORMAT=physionet2012 FROM=dir TO=dir
	@$(BIN)/python -m training import $(FORMAT) $(FROM) $(TO)

train: $(VENV)/train ## train and judge a model: CONFIG=file.toml
	@$(BIN)/python -m training train $(CONFIG)

evaluate: $(VENV)/train ## judge a finished model on your patients: MODEL=name/version DATA=folder
	@$(BIN)/python -m training evaluate "$(MODEL)" "$(DATA)" $(if $(RECALIBRATE),--recalibrate $(RECALIBRATE)) $(if $(LABEL),--label $(LABEL))

token: $(VENV)/run ## print a token for the model API: KEY=file
	@$(BIN)/python -m modelapi token $(if $(KEY),--key $(KEY))

chaos: $(VENV)/test ## torment a pipeline and compare its tables: SEED=1 STACK=embedded|compose
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(STACK),--stack $(STACK))

bench: $(VENV)/bench ## measure everything; about 20 minutes
	@$(BIN)/python -m benchmarks

test: $(VENV)/test ## run all tests
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

check: $(VENV)/test ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy wire buffer chaos dashboard embedded gateway hospital modelapi tool training

audit: $(VENV)/test ## look for known holes in the pinned requirements
	@$(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps $(patsubst %,-r %,$(wildcard $(addsuffix /requirements.txt,$(SERVICES) training benchmarks)))

clean: ## remove the environment and all that was derived or stored
	rm -rf $(VENV) var

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: $(VENV)/bin/python $(RUN_REQUIREMENTS)
	@echo "installing what the pipeline needs into $(VENV) (once, about a minute)"
	@$(BIN)/pip install --quiet --disable-pip-version-check $(RUN_REQUIREMENTS:%=-r %)
	@touch $@

$(VENV)/train: $(VENV)/run training/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r training/requirements.txt
	@touch $@

$(VENV)/bench: $(VENV)/train benchmarks/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

$(VENV)/test: $(VENV)/train requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
