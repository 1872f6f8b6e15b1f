# One way in for every chore. Uses the active Python; `make PYTHON=python3.12 test` takes another.
PYTHON ?= python3
PIP = $(PYTHON) -m pip --disable-pip-version-check
EXTRAS ?= test
FLAGS ?=
# Objects that one checkout or build folder compiled serve the others, where ccache is installed.
CCACHE_BASEDIR ?= $(CURDIR)
CCACHE_NOHASHDIR ?= 1
export CCACHE_BASEDIR CCACHE_NOHASHDIR

.PHONY: help build debug test test-debug lint format bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 20

build:  ## an editable install, compiled in build/; again after a change to C++ or Cython
	$(PIP) install --quiet -e ".[$(EXTRAS)]" -C cmake.define.MINERVA_BUILD_HARNESS=ON $(FLAGS)

debug:  ## the same with bounds checks, assertions and integrity checks on every step
	MINERVA_DEBUG=true $(MAKE) build

test: build  ## build, then all tests
	$(PYTHON) -m pytest

test-debug: debug  ## the same tests on the debug build
	$(PYTHON) -m pytest

lint: EXTRAS = test,dev
lint: build  ## ruff, mypy, cython-lint
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m cython_lint.cython_lint minerva/*.pyx minerva/*.pxd

format:  ## mend what ruff can mend
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: build  ## beside llama-server, built from the vendored tree; minutes
	$(PYTHON) -m bench

clean:  ## remove what was built; the unpacked llama.cpp stays
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
