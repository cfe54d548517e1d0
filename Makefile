# Everything here sets itself up: it needs Python 3.11 or later and make, nothing more.
# What is installed goes into .venv, what is made into build.

VENV := .venv
BIN := $(VENV)/bin

# Set it to choose another: make test PYTHON=python3.13
PYTHON ?= python3
PYTHONS := $(PYTHON) python3.11 python3.12 python3.13 python3.14

# Stamps carry this sum, so a changed pyproject.toml installs again and an unchanged one does not.
SUM := $(shell cksum < pyproject.toml | cut -d ' ' -f 1)
FOR_DEMO := $(VENV)/.has-examples-$(SUM)
FOR_TEST := $(VENV)/.has-test+lint+examples+bench-$(SUM)
FOR_BENCH := $(VENV)/.has-examples+bench-$(SUM)
FOR_DOCS := $(VENV)/.has-docs-$(SUM)
PROMETHEUS := build/tools/prometheus

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export MPLBACKEND := Agg

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint types interleavings unit prometheus bench docs clean find-python

help: ## say what there is (the default)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

demo: $(FOR_DEMO) ## watch a network of peers over two processes for half a minute, with a report
	@rm -rf build/demo
	$(BIN)/am sim --processes 2 --peers 40 --duration 30 --report build/demo

test: lint types interleavings unit ## everything that has to pass, as CI runs it

lint: $(FOR_TEST) ## ruff: faults and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(FOR_TEST) ## mypy --strict over all code, pyright over typical user code
	$(BIN)/mypy
	$(BIN)/pyright --warnings

# A run of their own: frontrun replaces locks and tracing. A skipped test fails it.
interleavings: $(FOR_TEST) ## tests of all schedules of two or three threads
	$(BIN)/frontrun $(BIN)/python -m pytest -n auto tests/interleavings

# Coverage of everything is gated by setup.cfg, that of the core alone by the second command.
unit: $(FOR_TEST) prometheus ## all other tests and doctests, with coverage
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered
	@$(BIN)/coverage report --include='asyncmachine/*.py' > build/coverage-core.txt || { cat build/coverage-core.txt; exit 1; }

# The server that tests scrape with, out of the Debian package: unpacked here, not installed.
prometheus: ## fetch Prometheus for the tests, if it is not there
	@test -x $(PROMETHEUS) || command -v prometheus > /dev/null || $(MAKE) --silent --no-print-directory $(PROMETHEUS) \
	|| echo 'Prometheus can not be had here (Debian package "prometheus"): what needs it is skipped.' >&2

$(PROMETHEUS):
	@command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null
	@rm -rf build/tools && mkdir -p build/tools
	@cd build/tools && { apt-get download -qq prometheus 2> /dev/null \
	|| { apt-get update -qq && apt-get download -qq prometheus; }; }
	@cd build/tools && dpkg-deb -x prometheus_*.deb unpacked && rm prometheus_*.deb \
	&& mv unpacked/usr/bin/promtool unpacked/usr/bin/prometheus . && rm -rf unpacked

bench: $(FOR_BENCH) ## measure the core, then the same job on other libraries
	$(BIN)/python -m bench core
	$(BIN)/python -m bench peers

docs: $(FOR_DOCS) ## build the manual into build/docs, and run its examples
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	$(BIN)/sphinx-build -W --keep-going -q -b doctest docs build/docs-doctest

clean: ## remove all that was installed and made
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv/.has-EXTRAS-SUM, extras joined by +
comma := ,
$(VENV)/.has-%-$(SUM): | $(BIN)/python
	@echo 'Installing asyncmachine[$(subst +,$(comma),$*)] into $(VENV)'
	@$(BIN)/python -m pip install --quiet --editable '.[$(subst +,$(comma),$*)]'
	@rm -f '$(VENV)/.has-$*-'*
	@touch $@

$(BIN)/python:
	@python=$$($(MAKE) --silent --no-print-directory find-python) && \
	echo "Creating $(VENV) with $$python" && \
	"$$python" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# A name on the path may be a shim that leads nowhere, so each is run and asked.
find-python:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	    found="$${found:-$$python}"; \
	    if "$$python" -c 'import ensurepip' 2> /dev/null; then echo "$$python"; exit 0; fi; \
	  fi; \
	done; \
	if [ -n "$$found" ]; then \
	  echo "$$found cannot make virtual environments: it lacks ensurepip." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	else \
	  echo "Python 3.11 or later is needed, and none of these is one: $(PYTHONS)" >&2; \
	  echo "On Debian 12 or later: apt-get install python3 python3-venv" >&2; \
	fi; \
	exit 1
