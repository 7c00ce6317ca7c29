# Everything from nothing: `make demo` and `make test` set up what they need.

VENV ?= .venv
PYTHON ?= python3.11
BIN = $(VENV)/bin

.PHONY: demo test test-long lint types docs wheel bench ci clean

demo: $(VENV)/.installed
	$(BIN)/chanproxy demo

test: $(VENV)/.tested
	$(BIN)/python -m pytest $(PYTEST_ARGS)
	cd $$(mktemp -d) && PYTHONPATH=$(CURDIR) $(abspath $(BIN))/trial tests_trial

# The wake cycles a thousand times.
test-long: $(VENV)/.tested
	CHANPROXY_TEST_CYCLES=1000 $(BIN)/python -m pytest tests/test_service.py $(PYTEST_ARGS)

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developed
	$(BIN)/mypy

docs: $(VENV)/.documented
	$(BIN)/python docs/draw_lifecycle.py --check
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

# Install the wheel into a clean environment, and use it from another directory.
wheel: $(VENV)/.developed
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel .
	python3 -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --quiet build/wheel/*.whl
	cd / && $(CURDIR)/build/wheel/venv/bin/twistd chanproxy --help
	cd / && $(CURDIR)/build/wheel/venv/bin/chanproxy demo --cycles 20

# What carrying costs, beside other proxies: up to ten minutes.  BENCH_ARGS=--quick for less.
bench: $(VENV)/.installed
	-{ command -v cc && command -v socat && command -v haproxy \
	    && command -v /lib/systemd/systemd-socket-proxyd; } > /dev/null \
	    || sh .ci/apt gcc libc6-dev haproxy socat systemd
	$(BIN)/python -m bench.pump --output build/bench/pump.md $(BENCH_ARGS)

ci: lint types test wheel docs

clean:
	rm -rf $(VENV) build docs/_build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || (sh .ci/apt python3-venv && $(PYTHON) -m venv $(VENV))

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.tested: pyproject.toml | $(VENV)/bin/python
	command -v cc > /dev/null || sh .ci/apt gcc libc6-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.developed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,dev,docs]'
	touch $@ $(VENV)/.installed $(VENV)/.tested

$(VENV)/.documented: $(VENV)/.developed
	command -v dot > /dev/null || sh .ci/apt graphviz
	touch $@
