# Every recipe works from a fresh clone: what it needs it installs first, into .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8080
# Locks carry versions and hashes; pip refuses anything else.
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUN := $(VENV)/.run
DEV := $(VENV)/.dev

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tidings needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "No virtual environment could be made. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

$(RUN): requirements/run.lock pyproject.toml | $(BIN)/python
	@echo "Installing Tidings into $(VENV) …"
	@$(PIP) install --quiet --require-hashes -r requirements/build.lock
	@$(PIP) install --quiet --require-hashes -r requirements/run.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements/dev.lock $(RUN)
	@echo "Installing the tools for tests and checks …"
	@$(PIP) install --quiet --require-hashes -r requirements/dev.lock
	@touch $@

.PHONY: install
install: $(RUN) ## Install the service into .venv

.PHONY: serve
serve: $(RUN) ## Serve on http://127.0.0.1:8080 in sandbox mode
	@exec $(BIN)/tidings serve --sandbox --host $(HOST) --port $(PORT)

.PHONY: check
check: $(DEV) ## Format, lint, types, layers; writes nothing
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.PHONY: fix
fix: $(DEV) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: test
test: $(DEV) sdks ## Run all tests
	$(BIN)/pytest

.PHONY: sdks
sdks: $(DEV) ## Install the official SDKs that the tests drive
	@$(BIN)/python tests/clients/install.py

.PHONY: lock
lock: $(DEV) ## Renew the lock files (versions and hashes only)
	@./requirements/renew

.PHONY: clean
clean: ## Remove what was installed and built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
