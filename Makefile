# Everything from a bare clone: needs Python 3.11 or later and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test test-spark check unit lint types layers generate wheel bench bench-scale bench-sandbox bench-plan bench-delivery soak clean help

help: ## list what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

.venv/made: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt --upgrade pip
	touch $@

.venv/run: .venv/made pyproject.toml
	$(PIP) install -c constraints.txt --editable .
	touch $@

.venv/test: .venv/run
	$(PIP) install -c constraints.txt --editable '.[test]'
	touch $@

demo: .venv/run ## set up and show the main job on an embedded sandbox
	$(BIN)/segment-tools demo

test: .venv/test lint types layers wheel ## set up and check everything, the tests against the built wheel

check: test

.venv/spark: .venv/test
	$(PIP) install -c constraints.txt --editable '.[spark]'
	touch $@

test-spark: .venv/spark ## the tests of Spark, apart because of its size; needs Java 17
	@command -v java > /dev/null || { echo "There is no java: install a JRE, 17 or later (openjdk-17-jre-headless)." >&2; exit 1; }
	$(BIN)/pytest tests/spark

wheel: .venv/test ## build the wheel, and test what is in it
	rm -rf dist .venv/wheel
	$(PIP) wheel --no-deps --wheel-dir dist .
	$(PIP) install --no-deps --target .venv/wheel dist/segment_tools-*.whl
	WHEEL_UNDER_TEST=$(CURDIR)/.venv/wheel PYTHONPATH=$(CURDIR)/.venv/wheel $(BIN)/pytest -n auto $(TESTS)

unit: .venv/test ## the tests against the checkout, for work on it: make unit TESTS="-k batch"
	$(BIN)/pytest $(TESTS)

lint: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/test
	$(BIN)/pyright

layers: .venv/test
	$(BIN)/lint-imports

generate: .venv/test ## write anew what is generated: snapshots and the README's tables
	$(BIN)/python scripts/generate.py

bench: .venv/test ## measure all of it beside other libraries: make bench BENCH="--only stdio"
	$(BIN)/python benchmarks/bench.py $(BENCH)

bench-scale: .venv/test ## measure 1 to 64 writers that share a rate: make bench-scale BENCH="--limit 20"
	$(BIN)/python benchmarks/scale.py $(BENCH)

bench-sandbox: .venv/run ## measure the sandbox beside a bare route: make bench-sandbox BENCH="--rounds 3"
	$(BIN)/python benchmarks/sandbox.py $(BENCH)

bench-plan: .venv/test ## measure tracking plans: make bench-plan BENCH="--rules 10000"
	$(BIN)/python benchmarks/plan.py $(BENCH)

bench-delivery: .venv/test ## measure calls and deliveries beside bare HTTP: make bench-delivery BENCH="--rounds 3"
	$(BIN)/python benchmarks/delivery.py $(BENCH)

soak: .venv/run ## see that servers stay small under steady calls: make soak SOAK="--minutes 3"
	$(BIN)/python benchmarks/soak.py $(SOAK)

clean: ## forget what was set up and built
	rm -rf .venv .cache dist build
