# `make` alone lists what can be done.
.DEFAULT_GOAL := help
.PHONY: help .venv install app check test bench clean
PYTHON ?= python3
BIN := .venv/bin

help: ## List the targets
	@grep -E '^[a-z.]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv: .venv/filled ## Make the virtual environment and fill it, once
install: .venv/filled ## The same

.venv/filled: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python must be 3.11.4 or newer, got %d.%d.%d: set PYTHON=…" % sys.version_info[:3] if sys.version_info < (3, 11, 4) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@

app: .venv/filled ## Open the dashboard
	$(BIN)/hawq-viz app

check: .venv/filled ## Format, lint, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check ## Everything that must hold: checks, doctests, tests, browser, notebooks
	CHROMIUM="$$($(BIN)/python tests/chromium.py --install)" && export CHROMIUM && \
	  $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --nbmake engine hawq_viz tests $(wildcard notebooks)

bench: .venv/filled ## Timings, side by side with other ways
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	CHROMIUM="$$($(BIN)/python tests/chromium.py --install)" && export CHROMIUM && \
	  set -e && for name in frontier analyze traces finetune packing onnx jobs live dashboard; do \
	    $(BIN)/python benchmarks/$$name.py; done

clean: ## Remove the virtual environment and the caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
