# Two commands for a newcomer, on a fresh machine as they are:  make demo,  make test
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
TENSORFLOW := .venv-tensorflow
INPUTS := pyproject.toml constraints.txt requirements-nodeps.txt
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help demo test tensorflow versions python gallery benchmarks docs serve-docs dist lint format clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 16

demo: $(VENV)/.demo  ## train three contestants on two digits, about half a minute (ARGS="--seeds 3" for the spread)
	$(BIN)/groupwise demo $(ARGS)

test: $(VENV)/.dev  ## run the tests (ARGS="tests/plan -x" for some of them)
	$(BIN)/python -m pytest -n 2 $(ARGS)

tensorflow: $(TENSORFLOW)/.installed  ## an environment for the Keras checks on tensorflow, which `make test` then runs too

versions: $(VENV)/.dev  ## run the Keras checks with Keras 3.12 to the newest (ARGS="3.14.1", ARGS=--short; half an hour)
	$(BIN)/python -m tests.keras.versions $(ARGS)

python:  ## plans, selectors, schedules and the contract under another Python (ARGS=3.13; ten minutes, and torch anew)
	python$(ARGS) -m venv .venv-python$(ARGS)
	.venv-python$(ARGS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[demo,yaml,plot]' \
		pytest pytest-timeout hypothesis jsonschema scipy expecttest schedulefree prodigyopt torch-optimi pytorch-optimizer optuna
	.venv-python$(ARGS)/bin/python -m pytest -p no:cacheprovider tests/plan tests/schedules tests/select tests/contract \
		--ignore=tests/select/zoo --ignore=tests/select/test_timm.py --ignore=tests/plan/test_recipes_of_timm.py \
		-W 'ignore:Guards may run slower:RuntimeWarning'

gallery: $(VENV)/.gallery  ## run the examples and rewrite their tables and pictures (forty minutes of one core; ARGS="two_branches" for some)
	$(BIN)/python -m examples --write $(ARGS)

benchmarks: $(VENV)/.dev  ## measure all that docs/performance.md says, and rewrite its tables (ten minutes; ARGS="--only step" for some)
	$(BIN)/python -m benchmarks --write $(ARGS)

docs: $(VENV)/.dev  ## build the documentation site into docs/_build, warnings as errors (a minute and a half)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build

serve-docs: docs  ## build it and show it at http://localhost:8000
	$(BIN)/python -m http.server --bind localhost --directory docs/_build 8000

dist: $(VENV)/.dev  ## build wheel and source distribution, check them, and run the wheel in a new environment (a minute)
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv --clear dist/.venv
	dist/.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt dist/*.whl
	cd dist && .venv/bin/groupwise --version && .venv/bin/groupwise new vit-finetune > /dev/null && .venv/bin/groupwise schema > /dev/null
	rm -rf dist/.venv

lint: $(VENV)/.dev  ## ruff and mypy, as the continuous integration runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and every cache
	rm -rf $(VENV) $(TENSORFLOW) build dist docs/_build docs/jupyter_execute docs/reference .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(INPUTS) | $(BIN)/python
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps --requirement requirements-nodeps.txt
	@touch $@ $(VENV)/.demo

$(VENV)/.gallery: $(VENV)/.dev requirements-gallery.txt
	$(PIP) --no-deps --requirement requirements-gallery.txt
	@touch $@

$(TENSORFLOW)/.installed: requirements-tensorflow.txt
	$(PYTHON) -m venv $(TENSORFLOW)
	$(TENSORFLOW)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --requirement $<
	@touch $@
