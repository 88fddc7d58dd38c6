# make pipeline: set up and run everything. make test: set up and run the tests. Both do nothing twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := $(if $(shell command -v nvidia-smi 2>/dev/null),test$(,)gpu,test)
, := ,
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The stages call `python`: let it be the one with the packages.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: pipeline test lint clean

pipeline: $(READY)
	dvc repro
	@echo "The models are in models/gguf, what they are worth in reports/evaluate/answers.html."

test: $(READY)
	python -m pytest

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy stages

$(READY): pyproject.toml constraints.txt
	@echo "Installing the packages of pyproject.toml into $(VENV) (about 2 GB, once)."
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@# Unsloth last and without its requirements: pyproject.toml says why.
	$(PIP) install --quiet --constraint constraints.txt --no-deps unsloth unsloth-zoo
	@touch $@

clean:
	rm -rf $(VENV) models/checkpoints unsloth_compiled_cache
