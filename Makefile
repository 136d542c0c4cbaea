# make quickstart   compile a small real network, run it on integers alone, compare with the float one
# make test         the whole test suite
# make wheels       distributions for others to install
# make check        lint, typecheck, test: what continuous integration runs, with same-bytes
# All of them work in .venv, which they create and fill themselves. Another interpreter: make PYTHON=python3.13 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEEL = $(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq
MODEL := digits

.PHONY: quickstart test same-bytes lint typecheck check docs site bundles wheels clean

quickstart: $(VENV)/app
	@mkdir -p build/quickstart
	@echo "Compiling models/$(MODEL)/model.onnx, once as out.onnx and once for the integer machine."
	@$(WARM) & \
	$(BIN)/qcompile models/$(MODEL)/model.onnx -o build/quickstart/$(MODEL).onnx -o build/quickstart/$(MODEL).qprog \
		--calib models/$(MODEL)/calibration.npz --force && wait
	$(BIN)/python -m models.quickstart $(MODEL) build/quickstart

test: $(VENV)/dev
	@echo "Running the test suite: some ten minutes on two cores. The integer machine is compiled first, where it is not there yet."
	$(BIN)/python -m pytest

# A model compiled as it is here and as CPUs of other kinds would; the files must have the same bytes.
same-bytes: $(VENV)/dev
	$(BIN)/python -m benchmarks.same_bytes lines digits

lint: $(VENV)/dev
	$(BIN)/python -m ruff check .

# passes/ and runtime/ are parts of the package qcompiler but lie beside it: show mypy the package as it is installed.
typecheck: $(VENV)/dev
	@$(AS_INSTALLED)
	$(BIN)/python -m mypy

AS_INSTALLED = rm -rf build/typecheck && mkdir -p build/typecheck/qcompiler && \
	ln -s $(CURDIR)/qcompiler/* $(CURDIR)/passes $(CURDIR)/runtime build/typecheck/qcompiler/ && rm build/typecheck/qcompiler/*.pyi

check: lint typecheck test

# docs/architecture.md and docs/options.md are made from the code; a test fails where one is stale.
docs: $(VENV)/dev
	$(BIN)/python -m docs.architecture
	$(BIN)/python -m docs.options

# The documents as a site in build/site, with a reference from the docstrings. A warning is an error.
site: $(VENV)/docs
	@$(AS_INSTALLED)
	$(BIN)/python -m mkdocs build --strict

# Machine code of four x86-64 targets and one for ARM, so that no process has to compile it: one to two minutes for each, once for
# these sources.
bundles: $(VENV)/app
	$(BIN)/python -m qcompiler.runtime.bundle

# Both distributions into dist/, the compiler and the machine alone: pure wheels, which compile the machine at their first run, and wheels
# with the machine code of an architecture. What is in those is linked with nothing, so any Linux will do.
wheels: $(VENV)/dev bundles
	@rm -rf build/wheels && mkdir -p build/wheels/pure
	@cp -R pyproject.toml README.md LICENSE qcompiler passes runtime build/wheels/pure
	@rm -rf build/wheels/pure/runtime/build build/wheels/pure/runtime/bundles
	$(WHEEL) build/wheels/pure build/wheels/pure/runtime
	@for machine in x86_64 aarch64; do $(MAKE) --no-print-directory wheels-$$machine; done

wheels-%:
	@rm -rf build/wheels/$* && cp -R build/wheels/pure build/wheels/$* && rm -rf build/wheels/$*/build build/wheels/$*/runtime/build
	@$(BIN)/python -m qcompiler.runtime.bundle --copy-for $* build/wheels/$*/runtime/bundles
	$(WHEEL) --config-settings=--build-option=--plat-name=manylinux2014_$* build/wheels/$* build/wheels/$*/runtime

$(VENV)/docs: pyproject.toml | $(BIN)/python
	@echo "Installing what builds the site into $(VENV): some seconds, some 60 MB, beside qcompiler itself."
	$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info runtime/build runtime/*.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("qcompiler needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# Numba comes first: with it the machine is compiled, on another core, while the rest is installed. WARM says when it is ready.
WARM = $(BIN)/python -m qcompiler.runtime.warm

$(VENV)/app: pyproject.toml | $(BIN)/python
	@echo "Installing qcompiler and what it needs into $(VENV): one or two minutes, some 900 MB."
	$(PIP) numba
	@$(WARM) & $(PIP) --editable . && wait
	@touch $@

$(VENV)/dev: pyproject.toml | $(BIN)/python
	@echo "Installing qcompiler and what its tests need into $(VENV): about two minutes, some 1.2 GB."
	$(PIP) --editable '.[test,lint]'
	@touch $@ $(VENV)/app
