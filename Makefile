# The first two commands of the README need nothing but python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run-installed
DEV := $(VENV)/.dev-installed

.PHONY: install demo test lint fuzz bench bench-large bench-delivery bench-overload chaos chaos-bugs openapi requirements clean

install: $(RUN)

demo: $(RUN)
	$(BIN)/tranche demo

test: $(DEV)
	$(BIN)/pytest -n auto --durations=15

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.audit
	$(MAKE) --no-print-directory openapi-difference

bench: $(RUN)
	$(BIN)/python -m tests.bench

# A quarter of an hour and some 20 GB in the system's folder for temporary files; for single parts and smaller sizes
# see: python -m tests.bench.large --help
bench-large: $(DEV)
	$(BIN)/python -m tests.bench.large

# Some five minutes; for single parts see: python -m tests.bench.delivery --help
bench-delivery: $(DEV)
	$(BIN)/python -m tests.bench.delivery
	$(BIN)/python -m tests.bench.delivery.undo

# Some three minutes
bench-overload: $(DEV)
	$(BIN)/python -m tests.bench.overload

# Seeded rounds of faults at every place (docs/chaos.md); a failed one is repeated by: make chaos SEED=… ROUNDS=1
SEED ?= 1
ROUNDS ?= 200
chaos: $(DEV)
	$(BIN)/python -m tests.chaos --seed $(SEED) --rounds $(ROUNDS)

# Each bug of tests/chaos/planted.py must turn some round red.
chaos-bugs: $(DEV)
	$(BIN)/python -m tests.chaos bugs

# A million mutated requests, up to an hour on two busy cores (Ctrl-C prints what it has seen); what a failure names is repeated by:
# python -m tests.fuzz --seed … --only …
BODIES ?= 1000000
fuzz: $(DEV)
	$(BIN)/python -m tests.fuzz --bodies $(BODIES) --seed $(SEED)

# Writes the served document to openapi/; commit the difference with the change that made it.
openapi: $(DEV)
	$(BIN)/python -m app.api > openapi/openapi.yaml.new
	mv openapi/openapi.yaml.new openapi/openapi.yaml

.PHONY: openapi-difference
openapi-difference: $(DEV)
	$(BIN)/python -m app.api | diff -u openapi/openapi.yaml -
	$(BIN)/openapi-spec-validator openapi/openapi.yaml

# Pins anew, with hashes; needs uv. No index address is written.
requirements:
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra embedded --group build pyproject.toml -o requirements.txt
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--group otel -c requirements.txt -o requirements-otel.txt
	uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra embedded --group dev pyproject.toml -c requirements.txt -c requirements-otel.txt -o requirements-dev.txt

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tranche needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUN): requirements.txt pyproject.toml | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

$(DEV): requirements-dev.txt $(RUN)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
