# Every command sets itself up: the first one on a fresh machine creates .venv from requirements.lock.
#
#   make demo       the main job: reproduce IWAE's laptop preset on MNIST, judge its claims, write the report
#   make test       all tests
#   make lint       formatting, style, static types, import rules, generated tables
#   make notebooks  re-execute the published notebooks and compare
#   make site       build the public site; a warning is an error
#   make serve      build it and show it on this machine; pages reload when a file changes
#   make bench      speed, side by side with the peers; NAME=flows_peers: one of them; GPU=1: those for a GPU, on it
#   make conformance  every metric beside closed forms and the implementations that others maintain
#   make setup      the environment alone
#   make lock       write requirements.lock anew from pyproject.toml
#   make slurm      install SLURM for the tests that need one (Debian, Ubuntu; as root or by sudo)
#   make test-slurm start a SLURM of this machine's own, run these tests, stop it
#   make clean      remove the environment and everything made here

.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PAPER ?= iwae

.PHONY: help setup demo test slurm test-slurm lint format notebooks site serve bench conformance lock clean

help:
	@sed -n 's/^#   //p' Makefile

setup: .venv/.done

.venv/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, but '$(PYTHON)' is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.12"; exit 2; }
	@echo "Setting up .venv (about 2 GB, a few minutes the first time) ..."
	@$(PYTHON) -m venv .venv || { echo "The venv module is missing. On Debian or Ubuntu: apt install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar=on -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	@$(BIN)/referee demo $(PAPER)

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

slurm:
	@$(PYTHON) tests/cluster/slurm.py install

test-slurm: setup
	@$(PYTHON) tests/cluster/slurm.py installed
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm -rs --durations=10 tests/cluster

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/black --check --quiet . || { $(BIN)/black --check .; exit 1; }
	@$(BIN)/mypy
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/lint-imports
	@$(BIN)/referee tables --check
	@$(BIN)/python -m benchmarks.conformance --check

format: setup
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/black --quiet .

notebooks: setup
	@$(BIN)/python -m pytest -p no:xdist -p no:cacheprovider -o addopts= -o filterwarnings= --nbval --nbval-current-env \
	  --nbval-cell-timeout 300 projects/*/*.ipynb

site: setup
	@$(BIN)/referee site build --strict

serve: setup
	@$(BIN)/referee site serve

bench: setup .venv-peers/.done
	@.venv-peers/bin/python -m benchmarks $(NAME) $(if $(GPU),--gpu)

conformance: .venv-peers/.done
	@OMP_NUM_THREADS=1 .venv-peers/bin/python -m benchmarks.conformance

.venv-peers/.done: benchmarks/peers.txt benchmarks/peers_alone.txt
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers_alone.txt
	@touch $@

lock:
	@rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --upgrade pip
	@.venv-lock/bin/python -m pip install --quiet -e '.[dev,site]'
	@{ sed -n '/^#/p' requirements.lock; .venv-lock/bin/python -m pip freeze --all --exclude pip --exclude-editable \
	  | sed -E 's/^torch @.*/torch==2.13.0/; s/\+cpu$$//'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock && rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock .venv-peers build runs *.egg-info .pytest_cache .mypy_cache .ruff_cache
