# Everything from nothing: `make demo` and `make test` set up what they need.

VENV ?= .venv
PYTHON ?= python3.11
BIN = $(VENV)/bin
REFERENCE = docs/_build/html/api/.made

.PHONY: demo test test-long runtimes-long fuzz-time attack bench bench-breaths bench-looks \
    bench-neighbours bench-runtimes bench-signals bench-sleepers bench-sources bench-trace bench-wakes bench-work house keys changes coverage versions oldest lint types docs wheel ci clean

demo: $(VENV)/.installed
	$(BIN)/chanproxy demo

# Compiled once, or each of the hundreds of programs that the tests start would do it again.
test test-long: export PYTHONDONTWRITEBYTECODE =

# As many workers as help, see tests/workers.py; PYTEST_ARGS=-n0 for none.
test: $(VENV)/.tested $(VENV)/.programs
	$(BIN)/python -m pytest $(PYTEST_ARGS)
	cd $$(mktemp -d) && PYTHONPATH=$(CURDIR) $(abspath $(BIN))/trial tests.trial

# The wake cycles and the kills a thousand times, and those of each real program five hundred; those
# that run side by side do all they do six times.
test-long: $(VENV)/.tested $(VENV)/.programs
	CHANPROXY_TEST_CYCLES=1000 CHANPROXY_TEST_KILLS=1000 $(BIN)/python -m pytest tests/whole/test_service.py tests/channels/test_inflight.py $(PYTEST_ARGS)
	CHANPROXY_TEST_CYCLES=500 $(BIN)/python -m pytest tests/whole/test_real_*.py $(PYTEST_ARGS)
	CHANPROXY_TEST_CYCLES=2000 $(BIN)/python -m pytest tests/container/test_trap.py $(PYTEST_ARGS)
	CHANPROXY_TEST_STORMS=500 $(BIN)/python -m pytest tests/whole/test_ending.py $(PYTEST_ARGS)
	CHANPROXY_TEST_ROUNDS=6 $(BIN)/python -m pytest tests/whole/beside/test_beside.py $(PYTEST_ARGS)

# A container of Docker's is run in, stopped and looked at, a thousand times in all, and again beside
# a load on both processors: half an hour.
runtimes-long: export CHANPROXY_TEST_ARENA = docker
runtimes-long: $(VENV)/.tested $(VENV)/.programs
	CHANPROXY_TEST_EXECUTIONS=800 CHANPROXY_TEST_STOPS=150 CHANPROXY_TEST_HEALTHY=120 \
	    tests/runtimes/arena $(BIN)/python -m pytest -n 0 -rP -p no:cacheprovider --basetemp=/tmp/runtimes-long tests/runtimes/inside/test_often.py
	CHANPROXY_TEST_EXECUTIONS=200 CHANPROXY_TEST_STOPS=50 CHANPROXY_TEST_HEALTHY=120 \
	    tests/runtimes/arena tests/runtimes/loaded $(BIN)/python -m pytest -n 0 -rP -p no:cacheprovider --basetemp=/tmp/runtimes-long tests/runtimes/inside/test_often.py

# Random programs that wait, with and without chanproxy: a minute for each round of forty.
fuzz-time: $(VENV)/.tested
	CHANPROXY_TIMEFUZZ_ROUNDS=$${CHANPROXY_TIMEFUZZ_ROUNDS:-20} $(BIN)/python -m tests.whole.timefuzz $(FUZZ_ARGS)

# What many wake sources cost.
bench-sources: $(VENV)/.installed
	$(BIN)/python -m bench.wake_sources $(or $(BENCH_ARGS),10000)

# What trace points cost, on and off.
bench-trace: $(VENV)/.installed
	$(BIN)/python -m bench.trace

# What a wake by a program's own sockets takes.  BENCH_ARGS=--quick for less.
bench-wakes: $(VENV)/.installed
	-sh .ci/programs redis-server nginx=nginx-light /lib/systemd/systemd-socket-proxyd=systemd
	$(BIN)/python -m bench.adopt_wake $(BENCH_ARGS)

# What looking into a container costs.  BENCH_ARGS=--quick for less.
bench-looks: $(VENV)/.installed
	$(BIN)/python -m bench.adopt_scan $(BENCH_ARGS)

# What a container costs that is awake and at work.  BENCH_ARGS=--quick for less.
bench-work: $(VENV)/.installed
	-sh .ci/programs redis-server nginx=nginx-light
	$(BIN)/python -m bench.adopt_throughput $(BENCH_ARGS)

# What a wake takes in each runtime, beside its own unpause.  BENCH_ARGS="--cycles 10" for less.
bench-runtimes: $(VENV)/.tested $(VENV)/.programs
	@$(BIN)/python -m bench.runtimes
	@for kind in docker podman systemd runc crun lxc; do tests/runtimes/arena $(BIN)/python -m bench.runtimes $$kind $(BENCH_ARGS); done

# What a breath costs.  BENCH_ARGS="--breaths 10" for less.
bench-breaths: $(VENV)/.installed
	-sh .ci/programs redis-server
	$(BIN)/python -m bench.breath $(BENCH_ARGS)

# What noticing signals in a sleeping container costs.  BENCH_ARGS=--quick for less.
bench-signals: $(VENV)/.installed
	$(BIN)/python -m bench.signal_look $(BENCH_ARGS)

# How long idle programs sleep with the defaults, and what that costs: three minutes.
bench-sleepers: $(VENV)/.benched
	-sh .ci/programs redis-server nginx=nginx-light node=nodejs javac=default-jdk-headless initdb=postgresql
	$(BIN)/python -m bench.sleepers $(BENCH_ARGS)

# What the worst neighbours do to a container that is to be woken: two minutes.
bench-neighbours: $(VENV)/.tested $(VENV)/.programs
	$(BIN)/python -m tests.whole.attack --neighbours --seconds 5 $(BENCH_ARGS)

# The same beside a load on all processors, and all that is killed, stopped, stormed and forged:
# a quarter of an hour.
attack: $(VENV)/.tested $(VENV)/.programs
	$(BIN)/python -m tests.whole.attack --load $(ATTACK_ARGS)

# Figures of the package's shape.
house: $(VENV)/.tested
	$(BIN)/python -m tests.docs.house

# What the configuration's keys are, and the commands' options, into the documentation, the man page
# and the manager's interface.
keys: $(VENV)/.installed
	$(BIN)/python -m docs.write_keys
	$(BIN)/python -m docs.write_commands

# Which lines no quick test reaches; COVERED=tests for all tests, which takes twice as long as they.
# Tests that count descriptors may fail while they are traced; the report comes all the same.
COVERED ?= $$($(BIN)/python -m tests.quick)

coverage: $(VENV)/.developed
	rm -rf build/coverage
	-$(BIN)/coverage run -m pytest -q $(PYTEST_ARGS) $(COVERED)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The quick tests under each Python that is here, with the oldest and the newest packages: one or
# two minutes each.
versions: $(VENV)/.developed
	$(BIN)/nox $(NOX_ARGS)

oldest: $(VENV)/.developed
	$(BIN)/nox --session "quick-3.11(oldest)"

# What the fragments of news make of the next release; written into CHANGELOG.md by a release only:
# towncrier build, with its version.
changes: $(VENV)/.developed
	@$(BIN)/towncrier build --draft --version next

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developed
	$(BIN)/mypy

docs: $(VENV)/.documented $(REFERENCE)
	$(BIN)/python -m docs.draw_lifecycle --check
	$(BIN)/python docs/draw_trace.py --check
	$(BIN)/python -m docs.draw_rooms --check
	$(BIN)/python -m docs.draw_ways --check
	$(BIN)/towncrier build --draft --version next > docs/_build/changes.md
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	$(BIN)/python -m docs.links docs/_build/html *.md

# From the docstrings, when one of them may have changed: a minute of a processor.  A link in one of
# them that leads nowhere is an error.
$(REFERENCE): pyproject.toml docs/reference.py $(shell find chanproxy -name '*.py') | $(VENV)/.documented
	rm -rf $(@D)
	$(BIN)/python -m pydoctor
	touch $@

# Install the wheel into a clean environment, and use it from another directory; then do what the
# pages say about installing.
INSTALLING = env -u PYTHONPATH -u CHANPROXY_CONTROL PIP_QUIET=1 bash -e

wheel: $(VENV)/.developed
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel .
	python3 -m venv build/wheel/venv
	build/wheel/venv/bin/pip install --quiet build/wheel/*.whl
	cd / && $(CURDIR)/build/wheel/venv/bin/twistd chanproxy --help
	cd / && $(CURDIR)/build/wheel/venv/bin/chanproxy demo --cycles 20
	test -s build/wheel/venv/share/man/man1/chanproxy.1
	cp docs/examples/test_with_*.py build/wheel
	cd build/wheel && venv/bin/python -P venv/bin/trial $(CURDIR)/build/wheel/test_with_trial.py
	build/wheel/venv/bin/pip install --quiet pytest pytest-twisted
	cd build/wheel && venv/bin/python -P -m pytest -c /dev/null -W error test_with_pytest.py
	$(BIN)/python -m tests.shared.pages docs/howto-plugins.md '(?:ba)?sh' > build/wheel/plugins.sh
	PATH=$(CURDIR)/build/wheel/venv/bin:$$PATH $(INSTALLING) build/wheel/plugins.sh
	$(BIN)/python -m tests.shared.pages docs/install.md sh > build/wheel/install.sh
	HOME=$(CURDIR)/build/wheel $(INSTALLING) build/wheel/install.sh

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

$(VENV)/.benched: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@ $(VENV)/.installed

$(VENV)/.tested: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ $(VENV)/.installed

# Without root their tests are skipped, each with its reason.
$(VENV)/.programs: .ci/programs | $(VENV)/bin/python
	sh .ci/programs && touch $@ || [ "$$(id -u)" -ne 0 ]

$(VENV)/.developed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,dev,docs]'
	touch $@ $(VENV)/.installed $(VENV)/.tested

$(VENV)/.documented: $(VENV)/.developed
	command -v dot > /dev/null || sh .ci/apt graphviz
	touch $@
