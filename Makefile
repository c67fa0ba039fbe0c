# tickledger: `make` lists what there is. Everything that a target needs, it sets up itself.

# The newest that there is of those in pyproject.toml's `requires-python`. To be there is not enough: a shim may not run.
FITS := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
PYTHON ?= $(shell for one in python3.13 python3.12 python3.11 python3; do $$one $(FITS) && echo $$one && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
SECONDS ?= 0
.DEFAULT_GOAL := help
.PHONY: help setup archive native demo test faults fuzz bench bench-growth check unit lint hooks format audit secrets services services-stop services-status services-clean up down containers shell picture lock bench-latency bench-page

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## Make the environment in .venv, from requirements.lock

$(INSTALLED): requirements.lock pyproject.toml
	@$(or $(PYTHON),python3) $(FITS) || { \
	  echo "error: PYTHON is '$(or $(PYTHON),python3)' ($$($(or $(PYTHON),python3) --version 2>&1 | head -n 1)); it should be Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.13 ..." >&2; exit 2; }
	@$(PYTHON) tickledger/folder.py
	@echo "setting up .venv with $$($(PYTHON) --version): about three minutes the first time"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m services.spark_classes || echo "warning: each start of Spark will take some seconds longer" >&2
	@touch $@

archive: $(INSTALLED)  ## Pack Python, packages and the stream's code for the workers of a Spark cluster
	@exec $(BIN)/python -m services.archive

# Before anything is downloaded. MariaDB is to be had for x86-64 only; a mysqld on PATH takes its place.
native:  ## Say whether the servers of `make services` can run on this machine
	@case "$$(uname -sm)" in "Linux x86_64") ;; *) [ "$$(uname -s)" = Linux ] && command -v mysqld > /dev/null || { \
	  echo "error: this is $$(uname -sm); the servers here run on Linux x86_64: 'make up' runs everything in containers" >&2; \
	  exit 2; } ;; esac

demo: native $(INSTALLED)  ## Run it all: servers, producer, stream, dashboard. SECONDS=60 stops by itself. SECURE=1, NODES=3: as below
	@exec $(BIN)/python demo.py --seconds $(SECONDS) $(if $(filter 1,$(SECURE)),--secure) $(if $(NODES),--nodes $(NODES))

test: native $(INSTALLED)  ## Lint, types and all tests, on real servers that they start themselves
	@$(MAKE) --no-print-directory lint
	@exec $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

faults: $(INSTALLED)  ## Kill the real parts under load, many times, and compare with an oracle. NODES=3: a cluster's. ARGS="--share 0.2"
	@exec $(BIN)/python -m tools.faults $(if $(NODES),--nodes $(NODES)) $(ARGS)

fuzz: $(INSTALLED)  ## A minute of made-up messages, files, settings and backups; prints its seed. ARGS="--seconds 10 --seed 7"
	@exec $(BIN)/python -m tools.fuzz $(ARGS)

bench: $(INSTALLED) .venv-bytewax/installed  ## Land one topic with several engines in turn. ARGS="--rounds 1 --to artifacts/engines.md"
	@exec $(BIN)/python -m benchmarks $(ARGS)

.venv-bytewax/installed: benchmarks/bytewax-requirements.txt
	@echo "setting up .venv-bytewax, for one of the engines: a minute or two the first time"
	@$(PYTHON) -m venv .venv-bytewax
	@.venv-bytewax/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

bench-latency: $(INSTALLED)  ## From the producer to each store, at some paces and triggers. ARGS="--seconds 10"
	@exec $(BIN)/python -m benchmarks.latency $(ARGS)

bench-page: $(INSTALLED)  ## What the dashboard costs, and how soon its viewers see a batch (needs Chromium). ARGS="--viewers 5"
	@exec $(BIN)/python -m benchmarks.page $(ARGS)

bench-growth: $(INSTALLED)  ## What grows with batches, days and ticks. ARGS="--part batches --part days"
	@exec $(BIN)/python -m benchmarks.growth $(ARGS)

check: $(INSTALLED)  ## Lint, types and the tests that need no server, side by side
	@$(MAKE) --no-print-directory --jobs=2 lint unit

unit: $(INSTALLED)  ## The tests that need no server, but for the slow ones
	@exec $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile -m "not integration and not slow"

lint: $(INSTALLED)  ## Lint, format, types, and which package may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy .

hooks: $(INSTALLED)  ## Run the commit hooks on every file
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pre-commit run --all-files

audit: $(INSTALLED)  ## Look up known vulnerabilities of the locked packages; says so if no service answers
	@exec $(BIN)/python .ci/audit.py

secrets: $(INSTALLED)  ## Look for secrets in every version of every file that was ever committed
	@exec $(BIN)/python .ci/scan_secrets.py

format: $(INSTALLED)  ## Format the code, fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

services: native $(INSTALLED)  ## Start Kafka, Cassandra and MySQL on this machine. SECURE=1: with TLS and accounts. NODES=3: a cluster
	@exec $(BIN)/tickledger services start $(if $(filter 1,$(SECURE)),--secure) $(if $(NODES),--nodes $(NODES))

services-stop: $(INSTALLED)  ## Stop what `make services` started
	@exec $(BIN)/tickledger services stop

services-status: $(INSTALLED)  ## Tell which servers run
	@exec $(BIN)/tickledger services status

services-clean: $(INSTALLED)  ## Stop the servers and delete their data
	@$(BIN)/tickledger services stop && exec $(BIN)/tickledger services clean

up:  ## Start everything in containers: needs Docker, and nothing else. ARGS="--scale spark-worker=2"
	@exec containers/up $(ARGS)

down:  ## Stop and remove the containers; their data stay
	@exec docker compose down

containers: $(INSTALLED)  ## Try the containers: start, crash, move, scale and stop them, on an engine of its own if need be
	@exec $(BIN)/python -m tests.stack

shell: $(INSTALLED)  ## A shell in which every command of the README works as typed
	@printf '[ -f ~/.bashrc ] && . ~/.bashrc\n. .venv/bin/activate\n' > .venv/shellrc
	@echo "tickledger's environment; 'exit' leaves it"; exec bash --rcfile .venv/shellrc -i

picture: $(INSTALLED)  ## Pictures of the dashboard into docs/: light, dark, phone (needs Chromium)
	@exec $(BIN)/python -m tools.picture

# One lock, with one version of each package, for all Pythons of `requires-python`; past what dbt-mysql asks for, as
# `override-dependencies` says, which is why pip takes it only with --no-deps.
lock:  ## Resolve requirements.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --group dev pyproject.toml -o requirements.lock
	@sed -i '1i # pip takes this file with --require-hashes --no-deps only, which `make setup` gives it.' requirements.lock
