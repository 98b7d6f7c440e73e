# build: .venv with everything in it | test | test-long | demo | bench | docs | lint. A second run does only what has changed.
# wheel: dist/*.whl, one for every PyTorch and Python that are supported, with CUDA where .venv's PyTorch and an nvcc have it.
# cuda-check: what can be shown of the CUDA build without a GPU; downloads 5 GB, needs nvcc.
PYTHON ?= python3
# Installed first, and without a GPU from PyTorch's CPU index too (there 2.13.0+cpu, which pip prefers), so that no
# CUDA build is pulled where it is of no use.
TORCH ?= torch==2.13.0
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,--extra-index-url https://download.pytorch.org/whl/cpu)

VENV := .venv
BIN := $(VENV)/bin
# Modules are compiled to bytecode when they are first imported, which most never are.
INSTALL := $(BIN)/python -m pip install -q --no-compile
SOURCES := pyproject.toml setup.py MANIFEST.in $(wildcard csrc/*.* csrc/*/*.*)
# Where there is a compiler, code that it refuses is an error and no reason to go on without kernels.
REQUIRE := SAMPLING_ARGMAX_REQUIRE=$(if $(shell command -v $(or $(CXX),c++)),cpu)

TESTS := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 python_tests

.PHONY: build wheel test test-long cuda-check demo bench docs lint

build: $(VENV)/.built

$(VENV)/.torch:
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make a venv; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools wheel ninja numpy
	$(INSTALL) $(TORCH_INDEX) "$(TORCH)"
	touch $@

$(VENV)/.built: $(VENV)/.torch $(SOURCES)
	$(REQUIRE) $(INSTALL) -e '.[train,export,formats,hf,dev,bench,docs]' --no-build-isolation
	# They import torchvision, whose wheels of PyPI do not load beside a CPU build: it has a folder that only tests look into.
	$(INSTALL) --no-deps timm segmentation-models-pytorch
	$(INSTALL) --no-deps --upgrade --target $(VENV)/torchvision torchvision
	touch $@

wheel: build
	SAMPLING_ARGMAX_REQUIRE=cpu $(BIN)/python -m pip wheel -q . --no-build-isolation --no-deps -w dist

test: build
	$(TESTS) -m "not long"

# What takes minutes for one statement and has a short sibling in `test`.
test-long: build
	$(TESTS) -m long

# An environment with no more in it than a GPU machine has.
CUDA_VENV := .venv-cuda
CUDA_TORCH ?= torch==2.14.1

$(CUDA_VENV)/.torch:
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip install -q "$(CUDA_TORCH)" setuptools wheel ninja numpy scipy pytest
	touch $@

cuda-check: $(CUDA_VENV)/.torch
	$(CUDA_VENV)/bin/python -m bench.cuda_check

demo: build
	$(BIN)/sampling-argmax demo

bench: build
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.plot

# The pages as a site in build/docs; a broken link or any other warning stops it.
docs: build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --cache-dir build/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu*' 'python_tests/cuda_shim/*.h' 'python_tests/cuda_shim/*.cpp')
