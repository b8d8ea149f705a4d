# Each target makes .venv and fills it when it is not there; nothing needs to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test test-oldest check fix bench bench-peers bench-install stress clean

run: $(INSTALLED)
	$(BIN)/python run.py

# A process that is done takes tests from the others; tests/conftest.py says how many there are.
# What they and the processes that they start compile is kept in .venv.
test: export PYTHONDONTWRITEBYTECODE =
test: export PYTHONPYCACHEPREFIX = $(CURDIR)/.venv/bytecode
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# What rests on aiohttp's inside, with the oldest that pyproject.toml allows before the newest.
OLDEST := $(shell sed -n 's/^ *"aiohttp>=\([0-9.]*\),.*/\1/p' pyproject.toml)
test-oldest: export PYTHONPATH = $(CURDIR)/.venv/oldest
test-oldest: export PETSAGE_TESTS_AIOHTTP = $(OLDEST)
test-oldest: .venv/oldest/.installed
	$(BIN)/python -m pytest --quiet --numprocesses auto tests/test_aiohttp_inside.py tests/test_protocol.py tests/test_connection.py

.venv/oldest/.installed: $(INSTALLED)
	rm -rf .venv/oldest
	$(BIN)/pip install --quiet --no-deps --target .venv/oldest aiohttp==$(OLDEST)
	@touch $@

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive petsage features run.py scripts benchmarks --configfile pyproject.toml
	$(BIN)/petsage check

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python scripts/write_generated.py

bench: bench-install
	.venv-bench/bin/python -m benchmarks

# Every server of benchmarks/peers. DOCS=docs/benchmarks.md also writes the page and its picture.
DOCS :=
bench-peers: bench-install
	.venv-bench/bin/pip install --quiet --requirement benchmarks/requirements-peers.txt
	.venv-bench/bin/python -m benchmarks --servers all --further --seconds 2 $(if $(DOCS),--docs $(DOCS))

bench-install:
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --upgrade pip
	.venv-bench/bin/pip install --quiet --requirement benchmarks/requirements.txt '.[build,postgres]'
	.venv-bench/bin/pip install --quiet --force-reinstall --no-deps .

stress: $(INSTALLED)
	$(BIN)/python -m pytest -m stress

clean:
	rm -rf .venv .venv-bench

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PetSage needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; say which one to take: make PYTHON=python3.13")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable . --group dev
	@touch $@
