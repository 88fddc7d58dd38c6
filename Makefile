# make pipeline: set up and run everything. make test: set up and run the tests. Both do nothing twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := test$(shell command -v nvidia-smi > /dev/null 2>&1 && echo ,gpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The stages call `python`: let it be the one with the packages.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: pipeline test fuzz lint verify experiments noise coverage mutants clean

pipeline: $(READY)
	dvc repro
	@python -m tools.verify
	@echo "The models are in models/gguf, what they are worth in reports/evaluate/answers.html."

# Two files of tests at a time, on half of the cores each.
test: $(READY)
	python -m pytest --numprocesses 2 --dist loadfile

# The same readers and writers as in the tests, with 140,000 inputs instead of 940.
fuzz: $(READY)
	PM_SENIOR_FUZZ=150 python -m pytest tests/test_fuzz.py --capture=no

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy stages

# What a GGUF was made from, whether it is intact and right, how it scored; without GGUF whether models/ is intact.
verify: $(READY)
	@python -m tools.verify $(GGUF)

# What was tried, one row each: the knobs that differ and the five numbers of reports/summary.json.
NUMBERS := train_loss|eval_loss|schema_valid|requirement_coverage|size_mib
KNOBS := (base_model|validate|format_chatml|lora|train|merge|quantize_gguf|evaluate|gate)\.(?!loss)
experiments: $(READY)
	@dvc exp show --no-pager --only-changed --keep '$(NUMBERS)' --drop '(?!Experiment|State|($(NUMBERS))$$|$(KNOBS))' $(FORMAT)

# Which lines of stages/ no test runs; takes as long as the tests and a little. 95 % is the least.
coverage: $(READY)
	coverage erase
	coverage run -m pytest --numprocesses 2 --dist loadfile
	NUMBA_DISABLE_JIT=1 coverage run -m pytest tests/shared/test_kquants_uncompiled.py
	coverage combine --quiet
	coverage report

# Which changes of the code no test notices: a sample for each module, or for those with MODULE in their path.
SAMPLE := 60
mutants: $(READY)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[mutants]'
	python -m tools.mutants --sample $(SAMPLE) --module "$(MODULE)"

# How much every metric varies with the seed alone: five runs, into reports/noise.tsv.
noise: $(READY)
	python -m tools.noise

$(READY): pyproject.toml constraints.txt
	@echo "Installing the packages of pyproject.toml into $(VENV) (about 2 GB, once)."
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@# Unsloth last and without its requirements: pyproject.toml says why.
	$(PIP) install --quiet --constraint constraints.txt --no-deps unsloth unsloth-zoo
	@# Vega for the pages of `dvc plots`: DVC's own would fetch it from the network.
	$(BIN)/python -c 'import vl_convert; print("{" + vl_convert.javascript_bundle() + "}")' > $(VENV)/vega.js
	@touch $@

clean:
	rm -rf $(VENV) models/checkpoints unsloth_compiled_cache
