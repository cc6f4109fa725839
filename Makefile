# The two commands that a stranger needs are `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto --dist loadfile
STATES ?= 2000000
SCENARIOS ?= 10000
FUZZ_SECONDS ?= 60
C_DATAPATH := backends/overlayd_backends/udp/c

.PHONY: help demo needs test test-all simulate model man problems image-check fuzz lint clean

help:
	@echo "make demo   watch a whole cluster come up, prove itself and go away again"
	@echo "make test   run all tests, after installing what they need"
	@echo "make model  search the states that a few keepers can reach, STATES=2000000 of each scenario"
	@echo "make man    write the manual pages to build/man, as a wheel has them"
	@echo "make problems  write the tables of problems in docs/ from their registry"
	@echo "make fuzz   let libFuzzer loose on the C datapath for FUZZ_SECONDS=60; needs clang"
	@echo "make lint   ruff, strict mypy, and the rules of prose in CONTRIBUTING.md"
	@echo "make clean  remove the environment and everything that was built"

demo: $(VENV)/demo.stamp
	@$(BIN)/overlayd lab demo

# First of all: without a compiler there would be no C datapath to test.
needs:
	@PYTHON=$(PYTHON) tests/install-needs

test: needs $(VENV)/test.stamp lint
	$(BIN)/pytest $(PYTEST_ARGS)

# What fails here is run once more by itself: some of these need Debian's and PyPI's servers, and all of them
# minutes of a machine that others may use as well.  What fails twice has failed.
test-all: test
	$(BIN)/pytest -m long || $(BIN)/pytest -m long --last-failed

simulate: $(VENV)/test.stamp
	$(BIN)/python -m overlayd.testing.simulation --scenarios $(SCENARIOS)

model: $(VENV)/test.stamp
	PYTHONPATH=tests $(BIN)/python -m support.model $(STATES)

man: $(VENV)/test.stamp
	$(BIN)/python deploy/build_backend.py build/man

problems: $(VENV)/test.stamp
	$(BIN)/python -m overlayd.cli.problem_tables docs

image-check: $(VENV)/test.stamp
	@tests/install-needs
	PYTHONPATH=deploy $(BIN)/python -m imagecheck

fuzz:
	@command -v clang >/dev/null \
	    || { echo "make fuzz needs clang and its libFuzzer; on Debian: apt-get install clang libclang-rt-14-dev"; exit 1; }
	@mkdir -p build/fuzz/corpus
	clang -D_GNU_SOURCE -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	    -I$(C_DATAPATH) -o build/fuzz/libfuzzer tests/fuzz/libfuzzer.c tests/fuzz/exercise.c \
	    $(filter-out %/binding.c %/binding_engine.c %/binding_loop.c %/loop.c,$(wildcard $(C_DATAPATH)/*.c))
	build/fuzz/libfuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=8192 build/fuzz/corpus

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=tests $(BIN)/python -m support.words

clean:
	rm -rf $(VENV) build *.egg-info backends/overlayd_backends/udp/*.so .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "overlayd needs Python 3.11 or newer; name one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	    || { rm -rf $(VENV); echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/demo.stamp: pyproject.toml $(wildcard $(C_DATAPATH)/*) | $(BIN)/python
	@echo "installing overlayd and its lab into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml $(wildcard $(C_DATAPATH)/*) | $(BIN)/python
	@echo "installing overlayd, its lab and its tests into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab,test]'
	@touch $@ $(VENV)/demo.stamp
