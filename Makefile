# Every recipe works from a fresh clone: what it needs it installs first, into .venv and build/.
.DEFAULT_GOAL := help
# The first Python that is new enough; `make PYTHON=…` names another.
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)
HOST ?= 127.0.0.1
PORT ?= 8080
# More for `make serve` and `make test`, such as ARGS='--speed 3600' or ARGS='-k signing'.
ARGS ?=
# How long `make fuzz` tries.
SECONDS ?= 60

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Locks carry versions and digests of everything; pip refuses anything else, and is not to resolve anew: a newer
# version of something that is asked for with an extra would be looked at, and refused.
LOCKED := $(PIP) --no-deps --require-hashes --requirement
# Stamps: where the environment was made, and what has been installed into it.
HERE := $(VENV)/.here
RUN := $(VENV)/.run
DEV := $(VENV)/.dev

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

# A virtual environment knows its place and its Python: one that was moved, or has lost it, is made anew.
ifneq ($(shell cat $(HERE) 2>/dev/null && test -x $(BIN)/python && echo .),$(CURDIR) .)
.PHONY: $(HERE)
endif
$(HERE):
	@test -n "$(PYTHON)" || \
		{ echo "Tidings needs Python 3.11 or newer. Name one with: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV), with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "No virtual environment could be made. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@printf '%s\n' '$(CURDIR)' > $@

$(RUN): requirements/build.lock requirements/run.lock pyproject.toml $(HERE)
	@echo "Installing Tidings and what it needs (half a minute or so) …"
	@$(LOCKED) requirements/build.lock
	@$(LOCKED) requirements/run.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements/dev.lock $(RUN)
	@echo "Installing the tools for tests and checks (half a minute or so) …"
	@$(LOCKED) requirements/dev.lock
	@touch $@

.PHONY: install
install: $(RUN) ## Install the service into .venv

.PHONY: serve
serve: $(RUN) ## Serve on http://127.0.0.1:8080 in sandbox mode
	@exec $(BIN)/tidings serve --sandbox --host $(HOST) --port $(PORT) $(ARGS)

.PHONY: test
test: $(DEV) sdks ## Run all tests
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: fuzz
fuzz: $(DEV) ## Fuzz targets and responses for SECONDS (60)
	@$(BIN)/python -m tests.fuzz $(SECONDS)

.PHONY: check
check: $(DEV) ## Look at format, lint, types and layers; mend nothing
	$(BIN)/python -m ruff format --check --quiet .
	$(BIN)/python -m ruff check --quiet .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-cache

# Worlds that `make sim` runs.
SEEDS ?= 1000

.PHONY: sim
sim: $(DEV) ## Run SEEDS simulated worlds on all cores, and check every invariant in each
	@$(BIN)/python -m tests.sim --seeds $(SEEDS)

.PHONY: mutants
mutants: $(DEV) ## Hunt wrong versions of the engine by simulation; every one must be caught
	@$(BIN)/python -m tests.sim.mutants

.PHONY: bench
bench: $(DEV) ## Measure, each figure beside a yardstick of the same run (some minutes; wrk and nginx help)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: bench-full
bench-full: $(DEV) ## Measure more: fan-out, TLS, the API, fixed rates, dead receivers (some twenty minutes)
	@$(BIN)/python -m bench --full $(ARGS)

# How many services `make kill` kills; SEED=… repeats an earlier run's plan.
KILLS ?= 200
SEED ?=

.PHONY: kill
kill: $(DEV) ## Kill services under load, and look for every event (KILLS=200 takes some minutes)
	@$(BIN)/python -m tests.kill --kills $(KILLS) $(if $(SEED),--seed $(SEED))

.PHONY: fix
fix: $(DEV) ## Format, and mend what can be mended
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
	$(BIN)/python -m tests.docs.tables

.PHONY: sdks
sdks: $(DEV)
	@$(BIN)/python tests/clients/install.py

.PHONY: lock
lock: ## Renew the lock files in requirements/
	@PYTHON=$(PYTHON) requirements/renew

.PHONY: clean
clean: ## Remove what was installed and built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
