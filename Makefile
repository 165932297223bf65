# `make sweep` and `make test` do everything on a fresh machine; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: moved help setup lock data features train sweep report promote models rollback serve pretrain ui server test lint clean bench doctor

ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
FER := $(BIN)/fer
STAMP := $(VENV)/.installed
# A node with a working NVIDIA driver gets TensorFlow's GPU build.
GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo -gpu)
LOCK := requirements$(GPU).lock
# The scripts of an environment name its folder: in a checkout that was moved it is made anew.
MOVED := $(shell [ ! -e .venv/bin/fer ] || grep -qF "$(CURDIR)/.venv/bin/" .venv/bin/fer || echo moved)
# The first Python of a version that TensorFlow has wheels for.
FIND_PYTHON = for p in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then echo $$p; break; fi; done
export MLFLOW_DISABLE_TELEMETRY := true
# Where Python is told to keep no bytecode, as in many images of containers, each start compiles all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12
	@echo
	@echo 'ARGS passes overrides on: make sweep ARGS="sweep=facenet sweep.max_trials=20"'

setup: $(STAMP) ## install everything into .venv, every version and hash as locked

$(STAMP): $(LOCK) pyproject.toml $(MOVED)
	@$(if $(MOVED),rm -rf .venv)
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo 'make: no Python 3.11, 3.12 or 3.13 found; install one, or say PYTHON=<path>' >&2; exit 2; fi; \
	echo "setup: $$($$python --version), $(LOCK): installs and compiles some 200 packages, which takes a minute or more"; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $$python -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "uv>=0.9"
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r $(LOCK) \
		|| $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e . \
		|| $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

lock: ## pin every version and hash anew
	@for extra in "" gpu; do \
	$(BIN)/uv pip compile pyproject.toml --group dev $${extra:+--extra $$extra} --universal --generate-hashes \
		--no-emit-index-url --no-header --no-annotate -q $${extra:+-c requirements.lock} -o requirements$${extra:+-$$extra}.lock; done

data: setup ## get FER2013 into data/ (kagglehub), check it, show its table
	@$(FER) download
	@$(FER) data data=fer2013 $(ARGS)

features: setup ## forward all images through the backbone, once
	@$(FER) features $(ARGS)

train: setup ## train one head and record the run
	@$(FER) train $(ARGS)

sweep: setup ## the main job: search hyperparameters (FER2013 if at hand, else demo faces)
	@$(FER) sweep $(ARGS)

report: setup ## a sweep as one HTML page; the last one, or ARGS="sweep=<id or name>"
	@$(FER) report $(ARGS)

promote: setup ## refit a sweep's best, test it once, register it; ARGS="sweep=<id or name> gate=strict"
	@$(FER) promote $(ARGS)

models: setup ## list the registered models
	@$(FER) models $(ARGS)

rollback: setup ## make the previous model the champion again
	@$(FER) rollback $(ARGS)

serve: setup ## answer over HTTP with the champion, at http://127.0.0.1:5001 (docs/serving.md)
	@$(FER) serve $(ARGS)

pretrain: setup ## train the pocket backbone from scratch
	@$(FER) pretrain $(ARGS)

doctor: setup ## say what this machine has and what is missing
	@$(FER) doctor

ui: setup ## compare runs in MLflow's UI, in your browser alone
	@$(FER) ui $(ARGS)

# Plain assignments: what a shell exports as HOST is no address to listen on; make server HOST=0.0.0.0 is.
HOST := 127.0.0.1
PORT := 5000
ALLOWED_HOSTS :=
server: setup ## MLflow on PostgreSQL behind a password, for several machines (docs/server.md)
	@exec $(BIN)/python server/start.py --host $(HOST) --port $(PORT) $(if $(ALLOWED_HOSTS),--allowed-hosts '$(ALLOWED_HOSTS)') $(ARGS)

test: setup ## run the tests
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

lint: setup ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: setup ## measure speed on this machine
	@$(BIN)/python benchmarks/bench.py $(ARGS)

clean: ## remove .venv, cache/ and what tools leave; mlruns/ stays
	rm -rf $(VENV) cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
