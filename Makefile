# The everyday commands. `make run` shows mailq at work; `make test` runs every check that a change must pass.
# Everything lives in .venv, which the first command makes.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test environment servers lint types imports unit docs fuzz faults soak parity lock wheel clean

BIN := .venv/bin
# Two test processes are the least that shows tests to be independent; more follow the cores.
TEST_PROCESSES ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -ge 2 ] && echo "$$n" || echo 2)
PYTEST_ARGS ?=
# The comparison needs dnspython and cryptography, network namespaces, and root.
PARITY ?= ../shared/parity/compare.py
PARITY_PYTHON ?= $(BIN)/python

help:  ## Show these commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run:  ## Watch mail being delivered, retried and returned, on this machine alone
	@scripts/environment run
	@$(BIN)/python examples/demo.py

test: environment servers lint types imports unit  ## Run every check

environment:
	@scripts/environment dev

servers:
	@scripts/servers

lint:  ## Style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:  ## Types, strictly
	$(BIN)/mypy

imports:  ## Who may import whom
	$(BIN)/lint-imports

unit:  ## Tests alone; PYTEST_ARGS="-k name" narrows them down
	$(BIN)/python -m pytest -p tests.no_skips -n $(TEST_PROCESSES) $(PYTEST_ARGS)

fuzz: environment  ## Fuzz the SMTP reader and dialogue for a minute, guided by coverage
	$(BIN)/python -m pip install --quiet atheris || uv pip install --quiet --python $(BIN)/python atheris
	$(BIN)/python -m tests.fuzz.fuzz_smtp -max_total_time=60

faults: environment servers  ## Every kind of fault for a quarter of an hour, with a table; FAULT_ROUNDS=, FAULT_SEED=
	$(BIN)/python -m tests.faults.run

soak: environment servers  ## Steady mail with random faults, watched for what grows; SOAK_MINUTES=30
	$(BIN)/python -m tests.faults.soak

parity:  ## Play recorded scenarios to mailq, where the recordings lie beside the checkout (needs root)
	@test -e $(PARITY) || { echo "no $(PARITY); set PARITY to the comparison's path"; exit 1; }
	$(PARITY_PYTHON) $(PARITY) --adapter '$(abspath $(BIN))/python $(CURDIR)/tests/parity/adapter.py' --all

docs: environment  ## Rewrite the reference pages from the code and the tests
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/python scripts/conformance.py

lock:  ## Resolve the dependencies again
	uv lock --upgrade --default-index https://pypi.org/simple

wheel: environment  ## Build the wheel into dist/
	$(BIN)/python -m hatchling build -t wheel

clean:  ## Remove what these commands made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
