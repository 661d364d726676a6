# Each target makes .venv if there is none, and installs again when requirements.txt or setup.cfg changed.
#   make demo       train, evaluate and draw on simulated patches (minutes on two cores); leaves the folder demo/
#   make test       everything but what is marked slow        make test-slow   the rest
#   make lint       ruff and mypy                             make bench       the quick measurements of docs/benchmarks.md
#   make bundles    write bundles/ from tools/templates       make packs       dist/<bundle>_v<version>.zip, verified
# Another interpreter: make test PYTHON=python3.12

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first interpreter of a version that is supported; a broken one (a shim, say) is passed over.
IN_RANGE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c '$(IN_RANGE)' >/dev/null 2>&1 && echo $$p && break; done)

# glibc gives each large buffer back to the kernel as soon as it is freed, and the kernel must hand it out again page by
# page, zeroed. A training step on the CPU frees and asks for gigabytes: keeping the pages makes it up to a third faster.
# Elsewhere (macOS, musl) these names mean nothing.
export MALLOC_MMAP_THRESHOLD_ = 1073741824
export MALLOC_TRIM_THRESHOLD_ = 4294967296
export MALLOC_TOP_PAD_ = 67108864

# Test processes at a time; each then computes on one thread.
WORKERS ?= 2

.PHONY: install demo test test-slow lint bench bundles packs clean
.DEFAULT_GOAL := install

install: $(STAMP)

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "error: found no Python 3.10 to 3.13; install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c '$(IN_RANGE)' || { echo "error: found `$(PYTHON) --version 2>&1`, expected Python 3.10 to 3.13; name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): requirements.txt setup.cfg | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/python tools/demo.py --out demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(STAMP)
	for file in $(filter-out tools/bench_known_answer.py,$(wildcard tools/bench_*.py)); do echo "== $$file"; $(BIN)/python $$file || exit; done

bundles: $(STAMP)
	$(BIN)/python tools/build_bundles.py

packs: $(STAMP)
	for bundle in bundles/*_segmentation; do $(BIN)/python tools/pack_bundle.py $$bundle --out dist || exit; done
	for pack in dist/*.zip; do $(BIN)/python tools/verify_bundle.py $$pack || exit; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
