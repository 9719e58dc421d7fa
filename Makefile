# Two commands on a bare Debian 12 machine, as root: `make demo` and `make test`.
# Everything they need they install themselves (scripts/bootstrap lists it, with reasons).
SHELL := /bin/bash
PY := .venv/bin/python

.PHONY: help demo test lint bench docs clean lock

help:
	@echo "make demo    three virtual hosts, a real topology, real traffic"
	@echo "make test    every lane this machine can run; says what it skips and why"
	@echo "make lint    format, lint, types, import contracts, module sizes, commit messages"
	@echo "make bench   speed against baselines in the same run; writes build/bench.json"
	@echo "make docs    regenerate the generated reference pages"
	@echo "make lock    write the exact versions of Python packages into requirements/"
	@echo "make clean   remove what the build made"

demo:
	@scripts/bootstrap run
	@.venv/bin/midonet demo $(ARGS)

test:
	@scripts/bootstrap test
	@$(PY) scripts/run_tests.py $(ARGS)

lint:
	@scripts/bootstrap test
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PY) scripts/check_modules.py
	@$(PY) scripts/check_commits.py

bench:
	@scripts/bootstrap test
	@scripts/bootstrap bench
	@$(PY) -m bench $(ARGS)

docs:
	@scripts/bootstrap test
	@$(PY) -m scripts.generate_docs

lock:
	@scripts/lock

clean:
	@$(MAKE) -s -C bpf clean
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
