# The two commands that a stranger needs are `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
STATES ?= 2000000
EPISODES ?= 10000

.PHONY: help demo test test-all simulate model man image-check lint clean

help:
	@echo "make demo   watch a whole cluster come up, prove itself and go away again"
	@echo "make test   run all tests, after installing what they need"
	@echo "make model  search the states that a few keepers can reach, STATES=2000000 of each scenario"
	@echo "make man    write the manual pages anew, after a change of the command line"
	@echo "make lint   ruff and strict mypy"
	@echo "make clean  remove the environment and everything that was built"

demo: $(VENV)/demo.stamp
	@$(BIN)/overlayd lab demo

test: $(VENV)/test.stamp lint
	@tests/install-needs
	$(BIN)/pytest $(PYTEST_ARGS)

test-all: test
	$(BIN)/pytest -m long $(PYTEST_ARGS)

simulate: $(VENV)/test.stamp
	$(BIN)/python -m overlayd.testing.simulation --episodes $(EPISODES)

model: $(VENV)/test.stamp
	PYTHONPATH=tests $(BIN)/python -m support.model $(STATES)

man: $(VENV)/test.stamp
	$(BIN)/python -m overlayd.cli.manual docs/man

image-check: $(VENV)/test.stamp
	@tests/install-needs
	PYTHONPATH=deploy $(BIN)/python -m imagecheck

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "overlayd needs Python 3.11 or newer; name one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	    || { rm -rf $(VENV); echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	@echo "installing overlayd and its lab into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	@echo "installing overlayd, its lab and its tests into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab,test]'
	@touch $@ $(VENV)/demo.stamp
