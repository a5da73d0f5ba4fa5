# make test | make demo | make lint | make bench | make asan: each makes .venv, installs and builds what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
BUILD_INPUTS := $(shell find csrc cmake -type f) CMakeLists.txt pyproject.toml constraints.txt

.PHONY: install test demo demo-fast bench lint format asan tsan readme clean

install: $(INSTALLED)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first: with it present, nothing else pulls in a build with CUDA.
$(INSTALLED): $(BIN)/python $(BUILD_INPUTS)
	$(PIP) install --quiet --constraint constraints.txt torch scikit-build-core pybind11 cmake ninja
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation \
	  --config-settings=cmake.define.SPARSEKIT_WERROR=ON --editable ".[dev]"
	touch $@

test: install
	$(BIN)/python -m pytest

demo: install
	$(BIN)/sparsekit demo

demo-fast: install
	$(BIN)/sparsekit demo --fast

bench: install
	$(BIN)/sparsekit bench --threads 1 --threads 2 --json benchmarks/results/layers.json

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.h' '*.cpp')

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.h' '*.cpp')

asan tsan: install
	PATH="$(CURDIR)/$(BIN):$$PATH"; cmake --preset $@ && cmake --build --preset $@ && ctest --preset $@

readme: install
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf $(VENV) build demo-out
