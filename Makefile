# make ablation: the 48 runs of the reported table. make test: the whole test suite. Both set themselves up first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: ablation test
ablation: .venv/installed
	$(BIN)/zeronorm train study=quick_ablation

test: .venv/installed
	$(BIN)/ruff check --quiet src tests experiments
	$(BIN)/ruff format --quiet --check src tests experiments
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "zeronorm needs Python 3.11, 3.12 or 3.13: run  make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing the locked dependencies into .venv (a minute or two)"
	@$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
