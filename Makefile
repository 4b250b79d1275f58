# Everything runs in .venv, which `make setup` makes; each target below does that by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= artifacts
IMAGES ?= 50
LIMIT ?= 50
FIT ?= crop
VARIANTS ?= rf-lw-mbv2
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
export VOC_ROOT

.PHONY: help setup export-all report bench qnn ncnn litert arm test test-long test-toolchains lint typecheck check clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make .venv and install the package with pinned versions
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

export-all: setup ## Export, quantize, validate and report all variants (VOC_ROOT=DIR IMAGES=50 LIMIT=50 FIT=crop)
	$(BIN)/deploy export-all --images $(IMAGES) --limit $(LIMIT) --fit $(FIT) --out $(OUT)

report: setup ## Write the report anew from the validation results
	$(BIN)/deploy report --out $(OUT)

bench: $(VENV)/.bench ## Compare quantizers, ours and others', in cost and result (VOC_ROOT=DIR VARIANTS="rf-lw-mbv2")
	$(BIN)/python -m deploy.bench $(VARIANTS) --fit $(FIT) --out $(OUT)
$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

qnn: $(VENV)/.qnn ## Install onnxruntime-qnn: Qualcomm's libraries, under its own licence
$(VENV)/.qnn: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[qnn]'
	@touch $@

ncnn: $(VENV)/.ncnn ## Install ncnn
$(VENV)/.ncnn: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ncnn]'
	@touch $@

litert: $(VENV)/.litert ## Install LiteRT and its quantizer
$(VENV)/.litert: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[litert]'
	@touch $@

arm: setup ## Install ARM builds of runtimes into the user's cache; needs qemu-user and Debian 12
	$(BIN)/deploy --quiet toolchain install arm

test: setup ## Run all tests but the long ones, one worker a core
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long"

test-long: setup ## Run the long tests (CONTRIBUTING.md)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long

test-toolchains: setup ## Install Sophgo's, Canaan's and (ACCEPT_LICENCE=1) Rockchip's compilers, and test them
	$(BIN)/deploy --quiet toolchain install sophgo
	$(BIN)/deploy --quiet toolchain install k230
	if [ -n "$(ACCEPT_LICENCE)" ]; then $(BIN)/deploy --quiet toolchain install rockchip --accept-licence; fi
	$(BIN)/python -m pytest -m "" tests/targets/test_toolchains.py tests/runtimes/test_rockchip.py tests/runtimes/test_sophgo.py

lint: setup ## Check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

typecheck: setup ## Check types
	$(BIN)/mypy

check: lint typecheck test test-long ## Check everything; changes nothing

clean: ## Remove what was built; keeps data/
	rm -rf $(VENV) $(OUT) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
