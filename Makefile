# make ablation: the 48 runs of the reported table. make check: every test but the slow ones, and the
# walls. make test: the whole test suite. All set themselves up first.
PYTHON ?= python3
BIN := .venv/bin
# more workers than cores: a quarter of the time they wait for the processes that they test
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist worksteal

.PHONY: ablation check test walls
ablation: .venv/installed
	$(BIN)/zeronorm train study=quick_ablation

check: walls
	$(PYTEST) -m "not slow"

test: walls
	$(PYTEST)

# What holds the tree: its style, who may import whom, what is declared, which types fit.
walls: .venv/installed
	$(BIN)/ruff check --quiet src tests experiments
	$(BIN)/ruff format --quiet --check src tests experiments
	@PYTHONPATH=src $(BIN)/lint-imports --no-cache > .walls || { cat .walls; rm .walls; exit 1; }
	@$(BIN)/mypy > .walls || { cat .walls; rm .walls; exit 1; }
	@$(BIN)/deptry --no-ansi src > .walls 2>&1 || { cat .walls; rm .walls; exit 1; }
	@rm .walls

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "zeronorm needs Python 3.11, 3.12 or 3.13: run  make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing the locked dependencies into .venv (a minute or two)"
	@$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
