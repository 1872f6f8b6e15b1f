# One way in for every chore. Uses the active Python; `make PYTHON=python3.12 test` takes another.
PYTHON ?= python3
PIP = $(PYTHON) -m pip --disable-pip-version-check
EXTRAS ?= test
FLAGS ?=
export CCACHE_NOHASHDIR = 1

.PHONY: build debug test test-debug lint format bench clean

build:  ## an editable install, compiled in build/; again after a change to C++ or Cython
	$(PIP) install --quiet -e ".[$(EXTRAS)]" -C cmake.define.MINERVA_BUILD_HARNESS=ON $(FLAGS)

debug:  ## the same with bounds checks, assertions and integrity checks on every step
	MINERVA_DEBUG=true $(MAKE) build

test: build
	$(PYTHON) -m pytest

test-debug: debug
	$(PYTHON) -m pytest

lint:
	$(PIP) install --quiet ruff mypy cython-lint numpy pydantic msgspec aiohttp typer
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	cython-lint minerva/*.pyx minerva/*.pxd

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: build
	$(PIP) install --quiet rich psutil aiohttp gguf
	$(PYTHON) -m bench

clean:
	rm -rf build dist vendor/llama.cpp/tree
