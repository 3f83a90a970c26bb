# One way to run each thing.  Every target first makes what it needs: Debian packages (as root), .venv, the native build.
SHELL := /bin/bash
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup build test lint docs demo bench fuzz soak clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Debian packages, .venv with all dependencies, CRIU; quick when nothing is missing
	@scripts/setup.sh

build: setup ## the native module, in place
	@scripts/build.sh

test: build ## all tests; ARGS="-k ring" passes arguments to pytest
	@$(PYTHON) -m pytest -n 3 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: build ## ruff and mypy --strict
	@$(PYTHON) -m ruff check .; ruff=$$?; $(PYTHON) -m mypy && exit $$ruff

docs: setup ## the documentation as a site, in build/site; a warning is an error
	@$(PYTHON) -m mkdocs build -q --strict

demo: build ## two lossy replicas, a real Suricata each, one clean alert stream; ends with an error if they disagree
	@.venv/bin/ftnids lab -n 2 --loss 0.05 --reference -o demo-out

bench: build ## the numbers of bench/README.md; ARGS="align" runs one of them
	@$(PYTHON) -m bench $(ARGS)

fuzz: build ## hostile bytes into everything that reads bytes of others; TIME=60 seconds a target, ARGS="wire attach"
	@scripts/fuzz.sh --seconds $(or $(TIME),60) $(ARGS)

soak: build ## nothing grows over PACKETS=10000000; then TIME=5 minutes of fresh simulation seeds
	@$(PYTHON) -m soak --packets $(or $(PACKETS),10000000) --minutes $(or $(TIME),5)

clean: ## remove what was built and downloaded, .venv included
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-out lab-out
	find ftnids -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
