# Everything runs in .venv, which is made on first use and made again when the locks change.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-slow check lint types audit format docs site environment lock clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: environment  ## Train a standard and a robust classifier on embedded images and compare them
	$(BIN)/toughen demo

test: environment  ## Run the tests, without the slow ones, on all cores
	$(BIN)/pytest -n auto --dist loadfile -m "not slow"

test-slow: environment  ## Run the slow tests, on all cores
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --durations 20 -m slow

check: lint types test  ## Lint, check format and types, run the tests: what a change must pass

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: environment
	$(BIN)/mypy

audit: environment  ## Look up the locked packages among published vulnerabilities
	$(BIN)/python tools/audit.py

format: environment  ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: environment  ## Write docs/reference out of docstrings and commands
	$(BIN)/python tools/reference.py

site: environment  ## Build the documentation site in site/, with API pages
	$(BIN)/python tools/build_site.py

environment: .venv/toughen  ## Make .venv with all that the other targets need

.venv/toughen: .venv/packages pyproject.toml
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/packages: requirements/install.py requirements/lock.txt requirements/torch.txt requirements/torch-cpu.txt
	$(PYTHON) requirements/install.py
	@touch $@

lock: .venv/packages  ## Make the locks out of pyproject.toml; newer versions: make lock UPGRADE=--upgrade
	$(BIN)/python requirements/lock.py $(UPGRADE)

clean:  ## Remove .venv and everything else that make made
	rm -rf .venv build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find toughen tests -name __pycache__ -prune -exec rm -rf {} +
