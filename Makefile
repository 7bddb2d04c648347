# The everyday commands. `make run` shows mailq at work; `make test` runs every check that a change must pass.
# Everything lives in .venv, which the first command makes.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run fleet fleet-show test environment servers lint types imports unit docs fuzz faults limits bench soak django parity shop signup screenshots lock wheel clean

BIN := .venv/bin
# Two test processes are the least that shows tests to be independent; more follow the cores.
TEST_PROCESSES ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -ge 2 ] && echo "$$n" || echo 2)
PYTEST_ARGS ?=
# Installed beside the environment, for the benchmarks alone.
BENCH_PEERS := 'django-post-office>=3.10,<4' 'nh3>=0.3,<1'
BENCH_ARGS ?=
# The comparison needs dnspython and cryptography, network namespaces, and root.
PARITY ?= ../shared/parity/compare.py
PARITY_PYTHON ?= $(BIN)/python

help:  ## Show these commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

run:  ## Watch mail being delivered, retried and returned, on this machine alone
	@scripts/environment run
	@$(BIN)/python examples/demo.py

fleet: environment servers  ## The services of docker-compose.yml without Docker, on free ports of loopback
	@$(BIN)/python -m scripts.fleet

fleet-show: environment servers  ## Send mail, add a worker meanwhile, tell their shares; pictures of Flower to docs/images
	$(BIN)/python -m scripts.fleet --demo --screenshots docs/images

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

limits: environment servers  ## Limits over four workers, counted by receivers: sessions, rates, the dead, a lost Redis
	$(BIN)/python -m benchmarks.limits_run

django: environment  ## Django's own tests of e-mail backends, on ours; on the newest Django, too
	$(BIN)/python tests/django_suite/run.py

bench: environment servers  ## Side by side with Postfix, Exim, Celery alone and django-post-office (needs root); BENCH_ARGS=
	@$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .venv/bench $(BENCH_PEERS) || \
		uv pip install --quiet --no-deps --target .venv/bench $(BENCH_PEERS)
	$(BIN)/python -m benchmarks.run --workloads all --output benchmarks/results/latest.json $(BENCH_ARGS); \
		status=$$?; $(BIN)/python -m benchmarks.report && exit $$status

soak: environment servers  ## Steady mail with random faults, watched for what grows; SOAK_MINUTES=30
	$(BIN)/python -m tests.faults.soak

parity:  ## Play recorded scenarios to mailq, where the recordings lie beside the checkout (needs root)
	@test -e $(PARITY) || { echo "no $(PARITY); set PARITY to the comparison's path"; exit 1; }
	$(PARITY_PYTHON) $(PARITY) --adapter '$(abspath $(BIN))/python $(CURDIR)/tests/parity/adapter.py' --all

docs: environment  ## Rewrite the reference pages from the code and the tests
	$(BIN)/python -m scripts.generate_docs
	$(BIN)/python scripts/conformance.py

shop: environment  ## The Django example: a shop, its admin and a worker, on this machine alone; Ctrl-C ends it
	$(BIN)/python examples/django_app/manage.py demo

signup: environment  ## The Flask example: a sign-up form and its confirmation, on this machine alone; Ctrl-C ends it
	$(BIN)/python -m examples.flask_app

screenshots: environment servers  ## Take the pictures in docs/images again
	MAILQ_SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/python -m pytest -n 0 tests/integration/test_django_example.py \
		tests/integration/test_flask_example.py

lock:  ## Resolve the dependencies again
	uv lock --upgrade --default-index https://pypi.org/simple

wheel: environment  ## Build the wheel into dist/
	$(BIN)/python -m hatchling build -t wheel

clean:  ## Remove what these commands made
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
